"""The outermost ASGI layer of every listener: identify the request, normalize its head, authorize it, route it.

Owns the rules of authentication, as pure functions. What is refused here was not routed: neither the hot routes nor
Quart see it.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

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
from llama_orch.telemetry.events import PAGE_REFUSED, TOKEN_REFUSED
from llama_orch.telemetry.records import emit
from llama_orch.telemetry.sparing import Sparing

OPEN_PATHS = ("/health", "/ready")
OPEN_PREFIX = "/v2/meta/"


@dataclass(frozen=True)
class Asker:
    """What a request says about who sends it: the peer's address (None on a Unix socket) and the two headers that can
    hold a token. X-Api-Key is what some of Anthropic's clients send."""

    peer: str | None
    authorization: str | None = None
    api_key: str | None = None

    @property
    def local(self) -> bool:
        """Whether it comes from this machine."""
        return self.peer is None or is_loopback(self.peer)

    @property
    def tokens(self) -> list[str]:
        """The tokens it shows."""
        scheme, _, token = (self.authorization or "").partition(" ")
        bearer = [token.strip()] if scheme.lower() == "bearer" else []
        return [*bearer, self.api_key.strip()] if self.api_key else bearer


@dataclass(frozen=True)
class Access:
    """Who may ask: with a token, everybody who has it, or the second one (and loopback peers if `loopback_excused`);
    without one, peers on this machine, unless `everybody` may."""

    token: Secret | None = None
    loopback_excused: bool = False
    second: Secret | None = None
    everybody: bool = False

    def refusal(self, path: str, asker: Asker) -> ApiError | None:
        """Return why a request for `path` is refused, or None."""
        if self.everybody or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return None
        if self.token is None:
            return None if asker.local else _refuse(403, ErrorCode.NON_LOOPBACK_WITHOUT_TOKEN)
        if asker.local and self.loopback_excused:
            return None
        if not asker.authorization and not asker.api_key:
            return _refuse(401, ErrorCode.MISSING_TOKEN)
        return None if self.proven(asker) else _refuse(401, ErrorCode.BAD_TOKEN)

    def proven(self, asker: Asker) -> bool:
        """Return whether a token that the request shows is one of ours."""
        known = [self._is_ours(token) for token in asker.tokens]
        return any(known)

    def by_place(self, asker: Asker) -> bool:
        """Return whether the request is served for the place it comes from alone, where a browser could be, too."""
        if self.everybody or asker.peer is None:
            return False
        return self.token is None or (self.loopback_excused and asker.local and not self.proven(asker))

    def _is_ours(self, given: str) -> bool:
        """Compare `given` with all our tokens, in a time that tells nothing, not even which one is right."""
        ours = [token.get_secret_value().encode() for token in (self.token, self.second) if token]
        return any([hmac.compare_digest(given.encode(), own) for own in ours])  # noqa: C419 -- with all of them


def for_metrics(app: QuartTrio, token: Secret | None, web: WebPolicy) -> "Gate":
    """Return `app` as the metrics port serves it: to everybody where there is a token to keep the rest safe, else only
    to this machine, as all listeners do without one."""
    return Gate(app, Access(everybody=token is not None), web=web)


REFUSALS = {
    ErrorCode.NON_LOOPBACK_WITHOUT_TOKEN: (
        "this daemon has no token, so it serves only requests from its own machine",
        "Set LLORCH_API_TOKEN on the daemon and send it as 'Authorization: Bearer …', or ask from loopback.",
    ),
    ErrorCode.MISSING_TOKEN: ("a token is needed", "Send it as 'Authorization: Bearer …' or 'X-Api-Key: …'."),
    ErrorCode.BAD_TOKEN: (
        "the token is none that this daemon accepts",
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
        # Quart types each kind of ASGI message; the gate passes them on as they are
        self._app = cast(AsgiApp, app)
        self._access = access
        self._hot = hot or HotRoutes()
        self._web = web or WebPolicy()
        self._told = Sparing()

    def is_hot(self, method: str, path: str) -> bool:
        """Whether a request goes to a hot path."""
        return self._hot.find(method, path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request; other kinds of ASGI scope are not spoken here."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        refused = normalize(scope, headers)
        stamps = _identify(scope["path"], headers)
        if (origin := _text(headers, b"origin")) and self._web.allows(origin):
            stamps += cors_fields(origin)
        reply = _stamping(send, stamps)
        if refused := refused or self._refusal(scope, headers):
            await _send_error(refused, scope, receive, reply)
        elif _is_preflight(scope["method"], headers):
            await _send_preflight(headers, scope, receive, reply)
        else:
            await self._route(scope, receive, reply)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> ApiError | None:
        """Return why a request with a good head is refused, or None. A preflight has no token: its origin decides."""
        peer = scope["client"][0] if scope.get("client") else None
        correlation.peer.set(peer)
        asker = Asker(peer, _text(headers, b"authorization"), _text(headers, b"x-api-key"))
        origin = _text(headers, b"origin")
        if _is_preflight(scope["method"], headers) and peer is not None:
            if origin is None or not self._web.allows(origin):
                return self._page_refused(forbidden_origin(origin), peer, origin)
            return None
        if refused := self._access.refusal(scope["path"], asker):
            if refused.body.code is ErrorCode.BAD_TOKEN:
                self._token_refused(asker)
            return refused
        if self._access.by_place(asker):
            host = None if scope["path"] in OPEN_PATHS else _text(headers, b"host")
            site = _text(headers, b"sec-fetch-site")
            if refused := self._web.refusal(host, origin, site, scope["scheme"]):
                return self._page_refused(refused, asker.peer, origin or host)
        return None

    async def _route(self, scope: Scope, receive: Receive, reply: Send) -> None:
        if found := self._hot.find(scope["method"], scope["path"]):
            await answer(*found, scope, receive, reply)
        elif scope["method"] == "HEAD" and (found := self._hot.find("GET", scope["path"])):
            await answer(*found, scope, *head_only(receive, reply))
        else:
            await self._app(scope, receive, reply)

    def _token_refused(self, asker: Asker) -> None:
        """Log whose token is wrong, by its fingerprint."""
        peer = asker.peer or "the Unix socket"
        if self._told.due(peer):
            shown = ", ".join(str(Secret(token)) for token in asker.tokens) or "no Bearer token"
            emit(TOKEN_REFUSED, peer=peer, shown=shown)

    def _page_refused(self, refused: ApiError, peer: str | None, source: str | None) -> ApiError:
        if self._told.due(f"page {peer}"):
            emit(PAGE_REFUSED, peer=peer, source=(source or "another site")[:128], code=refused.body.code)
        return refused


def normalize(scope: Scope, headers: dict[bytes, bytes]) -> ApiError | None:
    """Give `scope` the path that is routed, and `headers` the authority of an absolute target as their Host, which it
    replaces (RFC 9112, 3.2.2). Return why the head is refused, or None."""
    raw = scope["raw_path"] + scope["query_string"]
    refused = heads.refusal(scope["method"], scope["http_version"], raw, scope["headers"])
    found = heads.target(scope["raw_path"])
    if isinstance(found, ApiError):
        return refused or found
    scope["path"], scope["raw_path"] = found.path, found.raw_path
    if found.authority is not None:
        headers[b"host"] = found.authority
    return refused


def _identify(path: str, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Set the correlation id and the trace of the current task; return the headers that tell the client."""
    identifier = correlation.accepted(_text(headers, b"x-correlation-id"))
    correlation.current.set(identifier)
    trace = correlation.accepted_trace(_text(headers, b"traceparent") or "")
    correlation.traceparent.set(trace)
    stamps = [(b"x-correlation-id", identifier.encode())]
    if shown_as := IDENTIFIERS.get(shape_of(path, anthropic=ANTHROPIC_VERSION.encode() in headers)):
        stamps.append((shown_as.encode(), identifier.encode()))
    return [*stamps, (b"traceparent", trace.encode())] if trace else stamps


def _is_preflight(method: str, headers: Mapping[bytes, bytes]) -> bool:
    return method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _stamping(send: Send, stamps: list[tuple[bytes, bytes]]) -> Send:
    async def stamped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *stamps]
        await send(message)

    return stamped


async def _send_error(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.refuse(error)

    await answer(refuse, {}, scope, receive, send)


async def _send_preflight(headers: Mapping[bytes, bytes], scope: Scope, receive: Receive, send: Send) -> None:
    async def allow(exchange: Exchange) -> None:
        await exchange.send(204, headers=preflight_fields(headers))

    await answer(allow, {}, scope, receive, send)
