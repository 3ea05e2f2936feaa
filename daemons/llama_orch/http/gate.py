"""What every request passes first: its correlation id, and whether its peer may ask at all.

Owns the rules of authentication, as pure functions, and the ASGI layer that applies them before the hot routes
and Quart see a request.
"""

import hmac
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from quart_trio import QuartTrio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.handoff import is_loopback
from llama_orch.http.error_shapes import ANTHROPIC_VERSION, IDENTIFIERS, shape_of
from llama_orch.http.exchange import AsgiApp, HotRoutes, Message, Receive, Scope, Send, answer, head_only
from llama_orch.settings.types import Secret
from llama_orch.telemetry import correlation
from llama_orch.telemetry.events import TOKEN_REFUSED
from llama_orch.telemetry.records import emit
from llama_orch.telemetry.sparing import Sparing

OPEN_PATHS = ("/health", "/ready")
OPEN_PREFIX = "/v2/meta/"


@dataclass(frozen=True)
class Access:
    """Who may ask: with a token, everybody who has it, or the second one (and loopback peers if `loopback_excused`);
    without one, peers on this machine."""

    token: Secret | None = None
    loopback_excused: bool = False
    second: Secret | None = None

    def refusal(
        self, path: str, peer: str | None, authorization: str | None, api_key: str | None = None
    ) -> ApiError | None:
        """Why this request is refused, or None. `peer` is an address, or None for a Unix socket; `api_key` is
        the header X-Api-Key, in which some of Anthropic's clients send the token."""
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return None
        local = peer is None or is_loopback(peer)
        if self.token is None:
            return None if local else _refuse(403, ErrorCode.NON_LOOPBACK_WITHOUT_TOKEN)
        if local and self.loopback_excused:
            return None
        if not authorization and not api_key:
            return _refuse(401, ErrorCode.MISSING_TOKEN)
        known = [self._is_ours(token) for token in shown_tokens(authorization, api_key)]
        return None if any(known) else _refuse(401, ErrorCode.BAD_TOKEN)

    def _is_ours(self, given: str) -> bool:
        """Whether `given` is one of ours; how long that takes tells nothing, not even which."""
        ours = [token.get_secret_value().encode() for token in (self.token, self.second) if token]
        return any([hmac.compare_digest(given.encode(), own) for own in ours])  # noqa: C419 -- with all of them


def shown_tokens(authorization: str | None, api_key: str | None) -> list[str]:
    """The tokens that a request shows."""
    scheme, _, token = (authorization or "").partition(" ")
    bearer = [token.strip()] if scheme.lower() == "bearer" else []
    return [*bearer, api_key.strip()] if api_key else bearer


def for_metrics(app: QuartTrio, token: Secret | None) -> AsgiApp:
    """`app` as the metrics port serves it: to everybody where there is a token to keep the rest safe, else only to
    this machine, as all listeners do without one."""
    return cast(AsgiApp, app) if token else Gate(app, Access())


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


def _nowhere(path: str) -> ApiError | None:
    """Why no route can be looked up for `path`, or None. It may be a whole URL (RFC 9112, 3.2.2): Quart parses it."""
    try:
        if path.startswith("/") or urlsplit(path).path:
            return None
    except ValueError:
        pass
    return ApiError(400, ErrorBody(code=ErrorCode.INVALID_PARAMS, message="the request's target is no path"))


def _refuse(status: int, code: ErrorCode) -> ApiError:
    message, hint = REFUSALS[code]
    headers = (("www-authenticate", "Bearer"),) if status == 401 else ()
    return ApiError(status, ErrorBody(code=code, message=message, hint=hint), headers)


class Gate:
    """The outermost ASGI layer of a daemon's API."""

    def __init__(self, app: QuartTrio, access: Access, hot: HotRoutes | None = None) -> None:
        # Quart types each kind of ASGI message; the gate passes them on as they are
        self._app = cast(AsgiApp, app)
        self._access = access
        self._hot = hot or HotRoutes()
        self._told = Sparing()

    def is_hot(self, method: str, path: str) -> bool:
        """Whether a request goes to a hot path."""
        return self._hot.find(method, path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request; other kinds of ASGI scope are not spoken here."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-correlation-id", b"").decode("latin-1")
        identifier = correlation.accepted(given)
        correlation.current.set(identifier)
        trace = correlation.accepted_trace(headers.get(b"traceparent", b"").decode("latin-1"))
        correlation.traceparent.set(trace)
        stamps = [(b"x-correlation-id", identifier.encode())]
        shape = shape_of(scope["path"], anthropic=ANTHROPIC_VERSION.encode() in headers)
        if shown_as := IDENTIFIERS.get(shape):
            stamps.append((shown_as.encode(), identifier.encode()))
        reply = _stamping(send, [*stamps, (b"traceparent", trace.encode())] if trace else stamps)
        peer = scope["client"][0] if scope.get("client") else None
        correlation.peer.set(peer)
        authorization, api_key = (headers.get(name, b"").decode("latin-1") for name in (b"authorization", b"x-api-key"))
        refusal = self._access.refusal(scope["path"], peer, authorization, api_key) or _nowhere(scope["path"])
        if refusal:
            if refusal.body.code is ErrorCode.BAD_TOKEN:
                self._tell(peer or "the Unix socket", shown_tokens(authorization, api_key))
            await _send_error(refusal, scope, receive, reply)
        elif found := self._hot.find(scope["method"], scope["path"]):
            await answer(*found, scope, receive, reply)
        elif scope["method"] == "HEAD" and (found := self._hot.find("GET", scope["path"])):
            await answer(*found, scope, *head_only(receive, reply))
        else:
            await self._app(scope, receive, reply)

    def _tell(self, peer: str, shown: list[str]) -> None:
        """Log whose token is wrong, by its fingerprint."""
        if self._told.due(peer):
            emit(TOKEN_REFUSED, peer=peer, shown=", ".join(str(Secret(token)) for token in shown) or "no Bearer token")


def _stamping(send: Send, stamps: list[tuple[bytes, bytes]]) -> Send:
    async def stamped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *stamps]
        await send(message)

    return stamped


async def _send_error(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    async def refuse(exchange: Any) -> None:
        await exchange.refuse(error)

    await answer(refuse, {}, scope, receive, send)
