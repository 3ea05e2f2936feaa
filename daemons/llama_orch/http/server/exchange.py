"""The small exchange that hot paths are written against, and its mounting on ASGI.

A hot handler gets one `Exchange`: the request's head and body in; one `send`, or a stream of chunks, out. It
knows nothing of the server, so that a leaner one can go beneath without touching a handler. Everything that is
not hot stays on Quart.
"""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.http.server.error_shapes import ANTHROPIC_VERSION, error_answer
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.receiving import BODY_LIMIT_S, limit_hint, received
from llama_orch.settings.api import BODY_LIMIT
from llama_orch.telemetry.correlation import current

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[str, str]]

ANY = "ANY"
"""As the method of a route: whatever the method."""
ABORT = "llama_orch.abort"
"""In an ASGI scope: what closes the request's connection at once, also under a send that is shielded."""


def _nothing() -> None:
    """There is no connection to close."""


@dataclass
class Exchange:
    """One request and its answer. Not safe for two tasks at once, but `gone` may be awaited beside the answer.

    `path` is decoded; `target` is path and query as they came.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    variables: Mapping[str, str]
    _receive: Receive
    _send: Send
    target: str = ""
    _abort: Callable[[], None] = _nothing
    body_limit: int = BODY_LIMIT
    """Bytes that a body may have, where its path has no limit of its own."""
    started: bool = field(default=False, init=False)
    _body_ended: bool = field(default=False, init=False)

    async def body(
        self, limit: int | None = None, shape: Shape | None = None, limit_s: float = BODY_LIMIT_S
    ) -> bytearray:
        """The whole body, decoded, within `limit` bytes or the daemon's own limit. Raises ClientGone, and ApiError as
        `received` does."""
        limit = self.body_limit if limit is None else limit
        encoding, hint = self.headers.get("content-encoding", ""), limit_hint(limit, self.body_limit)
        return await received(self._piece, limit, shape, encoding=encoding, limit_s=limit_s, hint=hint)

    async def _piece(self) -> bytes | None:
        """The body's next piece, None behind the last one."""
        if self._body_ended:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._body_ended = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def send(self, status: int, body: bytes | bytearray = b"", headers: Headers = ()) -> None:
        """Answer in one piece; RFC 9110 (8.6) wants no Content-Length in a 204."""
        fields = [*headers] if status == 204 else [*headers, ("content-length", str(len(body)))]
        await self._start(status, fields)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def send_json(self, status: int, value: object, headers: Headers = ()) -> None:
        """Answer with `value` as JSON."""
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        await self.send(status, body, [*headers, ("content-type", "application/json")])

    async def refuse(self, error: ApiError) -> None:
        """Answer with `error`, in the shape that clients of this path parse."""
        told = error_answer(error, self.path, current.get(), anthropic=ANTHROPIC_VERSION in self.headers)
        await self.send_json(told.status, told.body, told.headers)

    async def open_stream(self, status: int, headers: Headers) -> None:
        """Begin an answer of unknown length; `write` sends its pieces, `finish` ends it."""
        await self._start(status, headers)

    async def write(self, chunk: bytes) -> None:
        """Send one piece; waits while the client reads slowly."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def finish(self, chunk: bytes = b"") -> None:
        """End the stream with its last piece."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})

    def abort(self) -> None:
        """Close the connection: nothing more goes out, and a send that waits for the client returns."""
        self._abort()

    async def gone(self) -> None:
        """Return when the client has left. To be awaited only after the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _start(self, status: int, headers: Headers) -> None:
        self.started = True
        fields = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": fields})


class ClientGone(Exception):
    """The client left before its request was complete."""


class BrokenOff(Exception):
    """What an answer is made of has broken off: it must not look complete, so its connection is closed."""


Handler = Callable[[Exchange], Awaitable[None]]


class HotRoutes:
    """The table of hot paths; `{name}` in a pattern matches one segment, `{name...}` at its end all the rest.
    `body_limit` bounds the bodies of requests, in bytes."""

    def __init__(self, body_limit: int = BODY_LIMIT) -> None:
        self.body_limit = body_limit
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self.declared: list[tuple[str, str]] = []
        """Method and pattern of each route."""

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Route `method` (or ANY) and `pattern` to `handler`; the first match wins."""
        regex = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", re.sub(r"\{(\w+)\.\.\.\}$", r"(?P<\1>.+)", pattern))
        self._routes.append((method, re.compile(regex), self._limited(handler)))
        self.declared.append((method, pattern))

    def _limited(self, handler: Handler) -> Handler:
        async def limited(exchange: Exchange) -> None:
            exchange.body_limit = self.body_limit
            await handler(exchange)

        return limited

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler for a request and the path's variables."""
        for wanted, regex, handler in self._routes:
            if wanted in (method, ANY) and (match := regex.fullmatch(path)):
                return handler, match.groupdict()
        return None


async def answer(handler: Handler, variables: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
    """Run a hot handler for one ASGI request; an ApiError before the answer began becomes its answer."""
    exchange = Exchange(
        scope["method"],
        scope["path"],
        dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)),
        {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        variables,
        receive,
        send,
        _target(scope),
        scope.get(ABORT, _nothing),
    )
    try:
        await handler(exchange)
    except ApiError as error:
        if exchange.started:
            raise
        await exchange.refuse(error)
    except ClientGone:
        return
    except BrokenOff:
        raise
    except Exception:
        log.exception("%s %s failed by an error of the daemon's own", scope["method"], scope["path"])
        if exchange.started:
            raise
        body = ErrorBody(code=ErrorCode.INTERNAL, message="an error of the daemon's own", hint="Its log says more.")
        await exchange.refuse(ApiError(500, body))


def _target(scope: Scope) -> str:
    query = scope.get("query_string", b"")
    return bytes(scope.get("raw_path", b"") + (b"?" + query if query else b"")).decode("latin-1")


def head_only(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """For an answer to HEAD: its head is sent and its body is not; to its handler the client has then left."""
    sent = False

    async def receiving() -> Message:
        return {"type": "http.disconnect"} if sent else await receive()

    async def sending(message: Message) -> None:
        nonlocal sent
        if message["type"] == "http.response.start":
            sent = True
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return receiving, sending
