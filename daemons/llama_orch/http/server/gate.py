"""The outermost ASGI layer of every listener: identify the request, authorize it, route it.

The rules of authentication are pure functions of the path and the caller. A refused request reaches neither the hot
routes nor Quart.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, cast

from quart_trio import QuartTrio

from llama_orch.addresses import is_loopback
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.http.server import heads
from llama_orch.http.server.browsers import WebPolicy, cors_fields, forbidden_origin, preflight_fields
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
    head_only,
)
from llama_orch.settings.types import Secret
from llama_orch.telemetry import correlation
from llama_orch.telemetry.events.service import PAGE_REFUSED, TOKEN_REFUSED
from llama_orch.telemetry.log_limit import LogLimit
from llama_orch.telemetry.records import emit

OPEN_PATHS = ("/health", "/ready")
OPEN_PREFIX = "/v2/meta/"
PAGE = "/"
PAGE_PREFIX = "/page/"
"""Files of the page. They contain nothing secret: the page itself asks for the token."""
PAGE_REFUSALS = (ErrorCode.FORBIDDEN_HOST, ErrorCode.FORBIDDEN_ORIGIN)
SOURCE_LIMIT = 128
"""Characters of a refused Origin or Host header in the log."""

RawHeaders = Mapping[bytes, bytes]


@dataclass(frozen=True)
class Caller:
    """The parts of a request that identify its sender. `peer` is None on a Unix socket.

    Some Anthropic clients send their token as X-Api-Key instead of Authorization.
    """

    peer: str | None
    authorization: str | None = None
    api_key: str | None = None
    host: str | None = None
    origin: str | None = None
    site: str | None = None
    """The header Sec-Fetch-Site."""
    preflight: bool = False

    @classmethod
    def of(cls, scope: Scope, headers: RawHeaders) -> Self:
        return cls(
            peer=scope["client"][0] if scope.get("client") else None,
            authorization=_text(headers, b"authorization"),
            api_key=_text(headers, b"x-api-key"),
            host=_text(headers, b"host"),
            origin=_text(headers, b"origin"),
            site=_text(headers, b"sec-fetch-site"),
            preflight=is_preflight(scope["method"], headers),
        )

    @property
    def local(self) -> bool:
        return self.peer is None or is_loopback(self.peer)

    @property
    def tokens(self) -> list[str]:
        scheme, _, token = (self.authorization or "").partition(" ")
        bearer = [token.strip()] if scheme.lower() == "bearer" else []
        return [*bearer, self.api_key.strip()] if self.api_key else bearer


@dataclass(frozen=True)
class Access:
    """Who may use a listener.

    With a token: callers that send it or the second one, and loopback peers if `loopback_excused`. Without a token:
    peers on this machine. `everybody` lifts all of these restrictions. `page`: the listener has a page at /, which
    needs no token, since a browser cannot send one before it has the page.
    """

    token: Secret | None = None
    loopback_excused: bool = False
    second: Secret | None = None
    everybody: bool = False
    page: bool = False

    def is_page(self, path: str) -> bool:
        """Return whether `path` is that of the page or of one of its files."""
        return self.page and (path == PAGE or path.startswith(PAGE_PREFIX))

    def refusal(self, path: str, caller: Caller) -> ApiError | None:
        """Return why a request for `path` is refused, or None."""
        if self.everybody or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return None
        if self.token is None:
            return None if caller.local else _refuse(403, ErrorCode.NON_LOOPBACK_WITHOUT_TOKEN)
        if self.is_page(path) or (caller.local and self.loopback_excused):
            return None
        if not caller.authorization and not caller.api_key:
            return _refuse(401, ErrorCode.MISSING_TOKEN)
        return None if self.has_valid_token(caller) else _refuse(401, ErrorCode.BAD_TOKEN)

    def has_valid_token(self, caller: Caller) -> bool:
        return any([self._is_valid(token) for token in caller.tokens])  # noqa: C419 -- compare all, in constant time

    def relies_on_address(self, caller: Caller) -> bool:
        """Return whether only the peer's address authorizes the request.

        A browser on this machine has that address too, so such a request is also checked against the WebPolicy.
        """
        if self.everybody or caller.peer is None:
            return False
        return self.token is None or (self.loopback_excused and caller.local and not self.has_valid_token(caller))

    def _is_valid(self, token: str) -> bool:
        """Compare `token` with both configured tokens, in a time that does not depend on which one matches."""
        valid = [each.get_secret_value().encode() for each in (self.token, self.second) if each]
        return any([hmac.compare_digest(token.encode(), each) for each in valid])  # noqa: C419 -- compare all


def authorize(access: Access, web: WebPolicy, caller: Caller, path: str, scheme: str) -> ApiError | None:
    """Return why a well-formed request is refused, or None.

    A CORS preflight carries no token, so only its origin is checked. Pages cannot reach a Unix socket. Other sites may
    link to the page: they can neither read nor frame it.
    """
    if caller.preflight and caller.peer is not None:
        allowed = caller.origin is not None and web.allows(caller.origin)
        return None if allowed else forbidden_origin(caller.origin)
    if error := access.refusal(path, caller):
        return error
    if access.relies_on_address(caller):
        host = None if path in OPEN_PATHS else caller.host
        linked = access.page and path == PAGE and caller.origin is None
        return web.refusal(host, caller.origin, None if linked else caller.site, scheme)
    return None


def for_metrics(app: QuartTrio, token: Secret | None, web: WebPolicy) -> "Gate":
    """Return the gate of the metrics port.

    With a token, which protects the other ports, it is open to everybody. Without one it serves only this machine,
    as all listeners do.
    """
    return Gate(app, Access(everybody=token is not None), web=web)


REFUSALS = {
    ErrorCode.NON_LOOPBACK_WITHOUT_TOKEN: (
        "no token is configured, so only requests from this machine are served",
        "Set LLORCH_API_TOKEN on the daemon and send it as 'Authorization: Bearer …', or connect over loopback.",
    ),
    ErrorCode.MISSING_TOKEN: (
        "a token is required",
        "Send it as 'Authorization: Bearer …' or 'X-Api-Key: …'.",
    ),
    ErrorCode.BAD_TOKEN: (
        "the token is not valid",
        "Compare the fingerprints: journalctl -u queen-rbee | grep token_fp6",
    ),
}


def _refuse(status: int, code: ErrorCode) -> ApiError:
    message, hint = REFUSALS[code]
    headers = (("www-authenticate", "Bearer"),) if status == 401 else ()
    return ApiError(status, ErrorBody(code=code, message=message, hint=hint), headers)


class Gate:
    """The outermost ASGI layer of a listener."""

    def __init__(
        self, app: QuartTrio, access: Access, hot: HotRoutes | None = None, web: WebPolicy | None = None
    ) -> None:
        # Quart has a type per kind of ASGI message; the gate passes them on unchanged
        self._app = cast(AsgiApp, app)
        self._access = access
        self._hot = hot or HotRoutes()
        self._web = web or WebPolicy()
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
        error = authorize(self._access, self._web, caller, scope["path"], scope["scheme"])
        if error:
            self._log_refusal(error.body.code, caller)
        return error

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
    identifier = correlation.accepted(_text(headers, b"x-correlation-id"))
    correlation.current.set(identifier)
    trace = correlation.accepted_trace(_text(headers, b"traceparent") or "")
    correlation.traceparent.set(trace)
    fields = [(b"x-correlation-id", identifier.encode())]
    if alias := IDENTIFIERS.get(shape_of(path, anthropic=ANTHROPIC_VERSION.encode() in headers)):
        fields.append((alias.encode(), identifier.encode()))
    return [*fields, (b"traceparent", trace.encode())] if trace else fields


def is_preflight(method: str, headers: RawHeaders) -> bool:
    return method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers


def _text(headers: RawHeaders, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


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
