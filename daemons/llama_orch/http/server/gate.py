"""The outermost ASGI layer of every listener: identify the request, authorize it, route it.

A refused request reaches neither the hot routes nor Quart.
"""

from typing import cast

from quart_trio import QuartTrio

from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.http.server import heads
from llama_orch.http.server.access import Access, Caller, Entry, Keyring, RawHeaders, authorize, key_entry, text_of
from llama_orch.http.server.browsers import WebPolicy, cors_fields, preflight_fields
from llama_orch.http.server.error_shapes import ANTHROPIC_VERSION, IDENTIFIERS, shape_of
from llama_orch.http.server.exchange import (
    AsgiApp,
    Exchange,
    HotRoutes,
    Message,
    Receive,
    Scope,
    Send,
    answer,
)
from llama_orch.settings.types import Secret
from llama_orch.telemetry import correlation
from llama_orch.telemetry.events.service import PAGE_REFUSED, TOKEN_REFUSED
from llama_orch.telemetry.log_limit import LogLimit
from llama_orch.telemetry.records import emit

PAGE_REFUSALS = (ErrorCode.FORBIDDEN_HOST, ErrorCode.FORBIDDEN_ORIGIN)
SOURCE_LIMIT = 128
"""Characters of a refused Origin or Host header in the log."""


def for_metrics(app: QuartTrio, token: Secret | None, web: WebPolicy) -> "Gate":
    """Return the gate of the metrics port.

    With a token, which protects the other ports, it is open to everybody. Without one it serves only this machine,
    as all listeners do.
    """
    return Gate(app, Access(everybody=token is not None), web=web)


class Gate:
    """The outermost ASGI layer of a listener."""

    def __init__(
        self,
        app: QuartTrio,
        access: Access,
        hot: HotRoutes | None = None,
        web: WebPolicy | None = None,
        keys: Keyring | None = None,
    ) -> None:
        # Quart has a type per kind of ASGI message; the gate passes them on unchanged
        self._app = cast(AsgiApp, app)
        self._access = access
        self._hot = hot or HotRoutes()
        self._web = web or WebPolicy()
        self._keys = keys
        self._log_limit = LogLimit()

    def is_hot(self, method: str, path: str) -> bool:
        return self._hot.find(method, path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request. Other kinds of ASGI scope are not supported and return at once."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        malformed = normalize(scope, headers)
        caller = Caller.of(scope, headers)
        reply = _with_headers(send, self._identify(scope["path"], caller, headers))
        if error := malformed or self._authorize(scope, caller):
            await _send_error(error, scope, receive, reply)
        elif caller.preflight:
            await _send_preflight(headers, scope, receive, reply)
        else:
            await self._route(scope, receive, reply)

    def _identify(self, path: str, caller: Caller, headers: RawHeaders) -> list[tuple[bytes, bytes]]:
        """Set the context variables of the request; return the headers that every answer to it carries."""
        correlation.peer.set(caller.peer)
        fields = identify(path, headers)
        if caller.origin and self._web.allows(caller.origin):
            fields += cors_fields(caller.origin)
        return fields

    def _authorize(self, scope: Scope, caller: Caller) -> ApiError | None:
        entry = self._entry(scope, caller) if self._keys is not None else None
        error = entry.refusal if entry else authorize(self._access, self._web, caller, scope["path"], scope["scheme"])
        if error:
            self._log_refusal(error.body.code, caller)
        return error

    def _entry(self, scope: Scope, caller: Caller) -> Entry | None:
        """Let the request belong to the key that it shows, or to none."""
        assert self._keys is not None
        self._keys.leave()
        return key_entry(self._access, self._keys, caller, scope["method"], scope["path"]) if self._keys else None

    def _log_refusal(self, code: ErrorCode, caller: Caller) -> None:
        if code is ErrorCode.BAD_TOKEN:
            peer = caller.peer or "the Unix socket"
            if self._log_limit.due(peer):
                fingerprints = ", ".join(str(Secret(token)) for token in caller.tokens) or "no Bearer token"
                emit(TOKEN_REFUSED, peer=peer, shown=fingerprints)
        elif code in PAGE_REFUSALS and self._log_limit.due(f"page {caller.peer}"):
            source = caller.origin or caller.host or "another site"
            emit(PAGE_REFUSED, peer=caller.peer, source=source[:SOURCE_LIMIT], code=code)

    async def _route(self, scope: Scope, receive: Receive, reply: Send) -> None:
        if found := self._hot.find(scope["method"], scope["path"]):
            await answer(*found, scope, receive, reply)
        elif scope["method"] == "HEAD" and (found := self._hot.find("GET", scope["path"])):
            await answer(*found, scope, *head_only(receive, reply))
        else:
            await self._app(scope, receive, reply)


def normalize(scope: Scope, headers: dict[bytes, bytes]) -> ApiError | None:
    """Set the path in `scope` to the one that is routed. Return why the head is refused, or None.

    The authority of an absolute target replaces the Host header in `headers` (RFC 9112, 3.2.2).
    """
    raw = scope["raw_path"] + scope["query_string"]
    refused = heads.refusal(scope["method"], scope["http_version"], raw, scope["headers"])
    found = heads.target(scope["raw_path"])
    if isinstance(found, ApiError):
        return refused or found
    scope["path"], scope["raw_path"] = found.path, found.raw_path
    if found.authority is not None:
        headers[b"host"] = found.authority
    return refused


def identify(path: str, headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Set the correlation id and the trace of the current task; return the response headers that name them."""
    identifier = correlation.accepted(text_of(headers, b"x-correlation-id"))
    correlation.current.set(identifier)
    trace = correlation.accepted_trace(text_of(headers, b"traceparent") or "")
    correlation.traceparent.set(trace)
    fields = [(b"x-correlation-id", identifier.encode())]
    if alias := IDENTIFIERS.get(shape_of(path, anthropic=ANTHROPIC_VERSION.encode() in headers)):
        fields.append((alias.encode(), identifier.encode()))
    return [*fields, (b"traceparent", trace.encode())] if trace else fields


def _with_headers(send: Send, fields: list[tuple[bytes, bytes]]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *fields]
        await send(message)

    return sending


async def _send_error(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.refuse(error)

    await answer(refuse, {}, scope, receive, send)


async def _send_preflight(headers: RawHeaders, scope: Scope, receive: Receive, send: Send) -> None:
    async def allow(exchange: Exchange) -> None:
        await exchange.send(204, headers=preflight_fields(headers))

    await answer(allow, {}, scope, receive, send)


def head_only(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Adapt a GET handler to HEAD: send only the head, then report to the handler that the client has left."""
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
