"""Protection from web pages: the allowed Host and Origin of requests that carry no token. Pure functions.

A page on any site can make its visitor's browser send requests to 127.0.0.1 (CSRF). With a DNS name of its own that
resolves to 127.0.0.1 it can also read the answers (DNS rebinding). Pages cannot change the headers Host, Origin and
Sec-Fetch-Site. Other programs send no Origin and address the daemon by IP address or a name of the machine.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode

ANY = "*"
PREFLIGHT_MAX_AGE_S = 600
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class WebPolicy:
    """The host names and origins that are allowed in addition to the built-in ones.

    `hosts` are DNS names in lower case, or `*.example.org` for all names below it. `origins` are `scheme://host[:port]`,
    `scheme://*`, or `*` for all.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    own_names: frozenset[str] = frozenset()

    def refusal(self, host: str | None, origin: str | None, site: str | None, scheme: str) -> ApiError | None:
        """Return why a request without a token is refused, or None.

        `host`, `origin` and `site` are the headers Host, Origin and Sec-Fetch-Site; `scheme` is the listener's.
        """
        if host is not None and not self.knows(host):
            return _forbidden(
                ErrorCode.FORBIDDEN_HOST,
                f"host name {_shortened(host)} is not allowed",
                "Use its IP address or localhost, or add the name to LLORCH_ALLOWED_HOSTS.",
            )
        if site in ("same-origin", "none") or (origin is None and site is None):
            return None
        if origin is not None and (self.allows(origin) or (site is None and _is_own(origin, host, scheme))):
            return None
        return forbidden_origin(origin)

    def knows(self, host: str) -> bool:
        """Return whether a Host header names this machine: by loopback name, IP address, own or allowed name."""
        name = _without_port(host).rstrip(".").lower()
        if name == "localhost" or name.endswith(".localhost") or name in self.own_names:
            return True
        return _is_address(name) or any(_matches(name, known) for known in self.hosts)

    def allows(self, origin: str) -> bool:
        """Return whether pages from `origin` may use this daemon."""
        scheme, _, rest = origin.lower().partition("://")
        return origin != "null" and bool(rest) and bool({ANY, f"{scheme}://{ANY}", origin.lower()} & set(self.origins))


def own_names(bind_host: str = "") -> frozenset[str]:
    """Return this machine's names: host name, its first label, that label in .local, and the bind address's host."""
    full = os.uname().nodename.lower()
    short = full.partition(".")[0]
    return frozenset(name for name in (full, short, f"{short}.local", bind_host.lower()) if name)


def cors_fields(origin: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that let a page from an allowed origin read an answer.

    Credentials are never allowed: the page itself sends the token, not the browser.
    """
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"Origin"),
    ]


def preflight_fields(request_headers: Mapping[bytes, bytes]) -> list[tuple[str, str]]:
    """Return the headers of the answer to a CORS preflight."""
    fields = [
        ("access-control-allow-methods", METHODS),
        ("access-control-max-age", str(PREFLIGHT_MAX_AGE_S)),
        ("vary", "Access-Control-Request-Headers"),
    ]
    if names := request_headers.get(b"access-control-request-headers"):
        fields.append(("access-control-allow-headers", names.decode("latin-1")))
    if request_headers.get(b"access-control-request-private-network") == b"true":
        fields.append(("access-control-allow-private-network", "true"))
    return fields


def forbidden_origin(origin: str | None) -> ApiError:
    site = _shortened(origin) if origin not in (None, "null") else "another site"
    return _forbidden(
        ErrorCode.FORBIDDEN_ORIGIN,
        f"web pages from {site} may not use this daemon",
        "Add the page's origin to LLORCH_ALLOWED_ORIGINS, for example https://chat.example.org.",
    )


def _forbidden(code: ErrorCode, message: str, hint: str) -> ApiError:
    return ApiError(403, ErrorBody(code=code, message=message, hint=hint))


def _is_own(origin: str, host: str | None, scheme: str) -> bool:
    own = f"{scheme}://{host or ''}".lower()
    return origin.lower().removesuffix(DEFAULT_PORTS[scheme]) == own.removesuffix(DEFAULT_PORTS[scheme])


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[")
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _matches(name: str, pattern: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _shortened(value: str | None) -> str:
    return (value or "")[:128]
