"""Protection from web pages: which Host and which Origin a request that has shown no token may name.

Pure. A page on any site can make its visitor's browser send requests to 127.0.0.1 (CSRF), and, with a DNS name of its
own that resolves to 127.0.0.1 (DNS rebinding), read the answers. A browser cannot hide where a request comes from:
Host, Origin and Sec-Fetch-Site are out of a page's reach. Programs send no Origin and name the daemon by its address.
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
    """The names and origins that are accepted beside the built-in ones.

    `hosts` are DNS names in lower case, or `*.example.org` for all names below one. `origins` are `scheme://host[:port]`,
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
                f"this daemon is not known as {_shown(host)}",
                "Use its IP address or localhost, or add the name to LLORCH_ALLOWED_HOSTS.",
            )
        if site in ("same-origin", "none") or (origin is None and site is None):
            return None
        if origin is not None and (self.allows(origin) or (site is None and _is_own(origin, host, scheme))):
            return None
        return forbidden_origin(origin)

    def knows(self, host: str) -> bool:
        """Return whether a Host header names this machine: loopback names, IP addresses, its own and allowed names."""
        name = _without_port(host).rstrip(".").lower()
        if name == "localhost" or name.endswith(".localhost") or name in self.own_names:
            return True
        return _is_address(name) or any(_matches(name, known) for known in self.hosts)

    def allows(self, origin: str) -> bool:
        """Return whether pages of `origin` may use this daemon."""
        scheme, _, rest = origin.lower().partition("://")
        return origin != "null" and bool(rest) and bool({ANY, f"{scheme}://{ANY}", origin.lower()} & set(self.origins))


def own_names(bind_host: str = "") -> frozenset[str]:
    """Return this machine's names: its host name, the first label of it, that in .local, and the bind address's."""
    full = os.uname().nodename.lower()
    short = full.partition(".")[0]
    return frozenset(name for name in (full, short, f"{short}.local", bind_host.lower()) if name)


def cors_fields(origin: str) -> list[tuple[bytes, bytes]]:
    """Return the headers by which a page of an allowed origin may read an answer. Never with credentials: a token is
    sent by the page, not by the browser."""
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"Origin"),
    ]


def preflight_fields(wanted: Mapping[bytes, bytes]) -> list[tuple[str, str]]:
    """Return the headers of the answer to a CORS preflight with the headers `wanted`."""
    fields = [
        ("access-control-allow-methods", METHODS),
        ("access-control-max-age", str(PREFLIGHT_MAX_AGE_S)),
        ("vary", "Access-Control-Request-Headers"),
    ]
    if names := wanted.get(b"access-control-request-headers"):
        fields.append(("access-control-allow-headers", names.decode("latin-1")))
    if wanted.get(b"access-control-request-private-network") == b"true":
        fields.append(("access-control-allow-private-network", "true"))
    return fields


def forbidden_origin(origin: str | None) -> ApiError:
    """Return the refusal of a request that a page of `origin` has made."""
    from_where = f"of {_shown(origin)}" if origin not in (None, "null") else "of another site"
    return _forbidden(
        ErrorCode.FORBIDDEN_ORIGIN,
        f"web pages {from_where} may not use this daemon",
        "Add the page's origin to LLORCH_ALLOWED_ORIGINS, as in https://chat.example.org.",
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


def _shown(value: str | None) -> str:
    return (value or "")[:128]
