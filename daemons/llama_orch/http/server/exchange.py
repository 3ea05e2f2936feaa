"""The interface of hot handlers, and its adapter to ASGI.

A hot handler gets one `Exchange`: it reads the request's head and body, and answers with one `send` or with a stream
of chunks. It does not depend on the server, so the server can be replaced without touching a handler. All other routes
are Quart's.
"""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.http.server.error_shapes import ANTHROPIC_VERSION, error_answer
from llama_orch.http.server.hang_ups import HangUp
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.receiving import BODY_LIMIT_S, limit_hint, received, received_into
from llama_orch.http.server.server_span import ServerSpan
from llama_orch.settings.api import BODY_LIMIT
from llama_orch.telemetry.correlation import current
from llama_orch.telemetry.tracing.spans import active

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[str, str]]

ANY = "ANY"
"""The method of a route that accepts every method."""
ABORT = "llama_orch.abort"
"""Key in an ASGI scope: a function that closes the connection at once, even during a shielded send."""
HANG_UP = "llama_orch.hang_up"
"""Key in an ASGI scope: the HangUp of the connection. Without it a task must wait for the client to leave."""
SEND_NOW = "llama_orch.send_now"
"""Key in an ASGI scope: a function that sends a chunk of a started answer as far as the kernel takes it at once. It
returns whether that was all; if not, the rest goes first with the next message."""


def _nothing() -> None:
    """Do nothing: the server has no way to close the connection."""


@dataclass
class Exchange:
    """One request and its answer. For one task at a time, except that `gone` may run beside the answer.

    `path` is decoded; `target` is path and query as received.
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
    scheme: str = "http"
    _hang_up: HangUp | None = None
    _send_now: Callable[[bytes], bool] | None = None
    body_limit: int = BODY_LIMIT
    """Largest body in bytes, unless the handler passes its own limit."""
    started: bool = field(default=False, init=False)
    status: int | None = field(default=None, init=False)
    """The status of the answer, once it has started."""
    finished: bool = field(default=False, init=False)
    span: ServerSpan | None = field(default=None, init=False)
    _body_ended: bool = field(default=False, init=False)

    async def body(
        self, limit: int | None = None, shape: Shape | None = None, limit_s: float = BODY_LIMIT_S
    ) -> bytearray:
        """Return the whole decoded body, of at most `limit` or `body_limit` bytes.

        Raises ClientGone, and ApiError as `received` does.
        """
        limit = self.body_limit if limit is None else limit
        encoding, hint = self.headers.get("content-encoding", ""), limit_hint(limit, self.body_limit)
        return await received(self._piece, limit, shape, encoding=encoding, limit_s=limit_s, hint=hint)

    async def body_into(self, take: Callable[[bytes], Awaitable[None]], limit: int) -> None:
        """Pass the decoded body, of at most `limit` bytes, to `take` as it arrives. Raises as `body` does."""
        await received_into(self._piece, take, limit, encoding=self.headers.get("content-encoding", ""))

    async def _piece(self) -> bytes | None:
        """Return the body's next chunk, or None after the last one."""
        if self._body_ended:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._body_ended = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def send(self, status: int, body: bytes | bytearray = b"", headers: Headers = ()) -> None:
        """Send the whole answer. RFC 9110 (8.6) forbids Content-Length in a 204."""
        fields = [*headers] if status == 204 else [*headers, ("content-length", str(len(body)))]
        await self._start(status, fields)
        await self.finish(body)

    async def send_json(self, status: int, value: object, headers: Headers = ()) -> None:
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        await self.send(status, body, [*headers, ("content-type", "application/json")])

    async def refuse(self, error: ApiError) -> None:
        """Answer with `error`, in the format that clients of this path parse."""
        reply = error_answer(error, self.path, current.get(), anthropic=ANTHROPIC_VERSION in self.headers)
        await self.send_json(reply.status, reply.body, reply.headers)

    async def open_stream(self, status: int, headers: Headers) -> None:
        """Start an answer of unknown length; `write` sends its chunks, `finish` ends it."""
        await self._start(status, headers)

    async def write(self, chunk: bytes) -> None:
        """Send one chunk; waits while the client reads slowly."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    def write_now(self, chunk: bytes) -> bool:
        """Send one chunk without waiting; False if a part of it, or all, must wait: then `write` the next one.

        Not while another task writes.
        """
        return bool(self._send_now and self._send_now(chunk))

    @property
    def writes_now(self) -> bool:
        """Whether `write_now` is possible. If not, it sends nothing."""
        return self._send_now is not None

    async def finish(self, chunk: bytes | bytearray = b"") -> None:
        """Send the last chunk and end the stream."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})
        self.finished = True

    def abort(self) -> None:
        """Close the connection. A send that waits for the client returns."""
        self._abort()

    async def gone(self) -> None:
        """Return when the client has left. Call it only after the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def accompany(self, act: Callable[[], Awaitable[None]], left: Callable[[], None]) -> None:
        """Run `act`, and call `left` if the client leaves meanwhile, which must make `act` return.

        Call it only after the body has been read. An exception of `act` may leave in a group.
        """
        if self._hang_up:
            self._hang_up.expect(left)
            try:
                await act()
            finally:
                self._hang_up.forget()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_gone, left)
            await act()
            nursery.cancel_scope.cancel()

    async def _wait_gone(self, left: Callable[[], None]) -> None:
        await self.gone()
        left()

    async def _start(self, status: int, headers: Headers) -> None:
        self.started = True
        self.status = status
        fields = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": fields})


class ClientGone(Exception):
    """The client left before its request was complete."""


class BrokenOff(Exception):
    """The source of a streamed answer ended early; the connection is closed to mark the answer incomplete."""


Handler = Callable[[Exchange], Awaitable[None]]


class HotRoutes:
    """The table of hot paths.

    In a pattern `{name}` matches one segment, and `{name...}` at the end matches the rest of the path. `body_limit` is
    the largest request body in bytes.
    """

    def __init__(self, body_limit: int = BODY_LIMIT) -> None:
        self.body_limit = body_limit
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._fixed: dict[tuple[str, str], Handler] = {}
        """The handlers found for paths without variables, as many as there are such routes."""
        self.declared: list[tuple[str, str]] = []
        """Method and pattern of each route."""

    def add(self, method: str, pattern: str, handler: Handler, *, traced: bool = False) -> None:
        """Route `method` (or ANY) and `pattern` to `handler`. The first match wins. `traced`: requests become spans."""
        regex = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", re.sub(r"\{(\w+)\.\.\.\}$", r"(?P<\1>.+)", pattern))
        self._routes.append((method, re.compile(regex), self._limited(handler, pattern if traced else None)))
        self.declared.append((method, pattern))

    def _limited(self, handler: Handler, span_name: str | None) -> Handler:
        async def limited(exchange: Exchange) -> None:
            exchange.body_limit = self.body_limit
            if span_name and (tracer := active.get()) and exchange.method == "POST":
                exchange.span = ServerSpan(tracer, span_name, _request_attributes(exchange), exchange.headers)
            await handler(exchange)

        return limited

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """Return the handler of a request and the variables in its path, or None."""
        if handler := self._fixed.get((method, path)):
            return handler, {}
        for declared, regex, handler in self._routes:
            if declared in (method, ANY) and (match := regex.fullmatch(path)):
                if declared == method and not regex.groups:
                    self._fixed[method, path] = handler
                return handler, match.groupdict()
        return None


def _request_attributes(exchange: Exchange) -> dict[str, str]:
    return {"http.request.method": exchange.method, "url.path": exchange.path, "url.scheme": exchange.scheme}


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers by name: the last of each, except Prefer, which RFC 7240 lets clients split."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    headers = dict(pairs)
    if "prefer" in headers:
        headers["prefer"] = ", ".join(value for name, value in pairs if name == "prefer")
    return headers


async def answer(handler: Handler, variables: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
    """Run a hot handler for one ASGI request. An ApiError raised before the answer has started becomes the answer."""
    exchange = Exchange(
        scope["method"],
        scope["path"],
        dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)),
        _headers(scope),
        variables,
        receive,
        send,
        _target(scope),
        scope.get(ABORT, _nothing),
        scope.get("scheme", "http"),
        scope.get(HANG_UP),
        scope.get(SEND_NOW),
    )
    try:
        await _answered(handler, exchange)
    finally:
        if exchange.span:
            exchange.span.end(exchange.status, complete=exchange.finished)


async def _answered(handler: Handler, exchange: Exchange) -> None:
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
        log.exception("internal error in %s %s", exchange.method, exchange.path)
        if exchange.started:
            raise
        body = ErrorBody(code=ErrorCode.INTERNAL, message="internal error", hint="See the daemon's log.")
        await exchange.refuse(ApiError(500, body))


def _target(scope: Scope) -> str:
    query = scope.get("query_string", b"")
    return bytes(scope.get("raw_path", b"") + (b"?" + query if query else b"")).decode("latin-1")
