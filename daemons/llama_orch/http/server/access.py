"""Which callers may use a listener: pure functions of the path and the caller."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from llama_orch.addresses import is_loopback
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.http.server.browsers import WebPolicy, forbidden_origin
from llama_orch.http.server.exchange import Scope
from llama_orch.settings.types import Secret

OPEN_PATHS = ("/health", "/ready")
OPEN_PREFIX = "/v2/meta/"
PAGE = "/"
MANUAL = "/docs"
PAGE_PREFIXES = ("/page/", "/docs/")
"""Files of the page and the manual. They contain nothing secret: the page itself asks for the token."""

RawHeaders = Mapping[bytes, bytes]


@dataclass(frozen=True)
class Entry:
    """A request that has shown the secret of a user's key; `refusal` is why the key does not permit it."""

    refusal: ApiError | None = None


class Keyring(Protocol):
    """The keys of users, besides the daemon's own token. False while there are none."""

    def __bool__(self) -> bool: ...

    def leave(self) -> None:
        """Let the current request belong to no key."""
        ...

    def enter(self, tokens: Sequence[str], method: str, path: str) -> Entry | None:
        """Let the current request belong to the key that one of `tokens` is the secret of; None if none is."""
        ...


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
            authorization=text_of(headers, b"authorization"),
            api_key=text_of(headers, b"x-api-key"),
            host=text_of(headers, b"host"),
            origin=text_of(headers, b"origin"),
            site=text_of(headers, b"sec-fetch-site"),
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
        """Return whether `path` is that of the page, of one of its files, or of the manual."""
        return self.page and (path in (PAGE, MANUAL) or path.startswith(PAGE_PREFIXES))

    def is_open(self, path: str) -> bool:
        """Return whether everybody may ask for `path`."""
        return self.everybody or path in OPEN_PATHS or path.startswith(OPEN_PREFIX)

    def refusal(self, path: str, caller: Caller) -> ApiError | None:
        """Return why a request for `path` is refused, or None."""
        if self.is_open(path):
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


def key_entry(access: Access, keys: Keyring, caller: Caller, method: str, path: str) -> Entry | None:
    """Return the entry of a request that shows a secret other than the token; None if it shows none, or need not.

    While there are keys, an unknown secret is refused also where no token is needed: its sender counts on a key.
    """
    tokens = caller.tokens
    if not tokens or caller.preflight or access.is_open(path) or access.is_page(path):
        return None
    if access.token is not None and access.has_valid_token(caller):
        return None
    return keys.enter(tokens, method, path) or Entry(_refuse(401, ErrorCode.BAD_TOKEN))


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


def is_preflight(method: str, headers: RawHeaders) -> bool:
    return method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers


def text_of(headers: RawHeaders, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
