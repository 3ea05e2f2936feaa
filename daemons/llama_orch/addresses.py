"""Parse and classify hosts, ports and URLs."""

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback address or `localhost`, without a name lookup."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


@dataclass(frozen=True)
class Host:
    """A host and a TCP port. Port 0 lets the kernel choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)


def parse_address(value: Any) -> Any:
    """Parse `host:port` or `[v6]:port` as a Host. Raises ValueError."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(?:\[([^\s\[\]]+)\]|([^\s:\[\]/]+)):([0-9]{1,5})", value)
    if match is None:
        raise ValueError("is not host:port")
    if match[1] and not _is_ipv6(match[1]):
        raise ValueError("has an invalid IPv6 address in brackets")
    port = int(match[3])
    if port > 65535:
        raise ValueError("has a port above 65535")
    return Host(match[1] or match[2], port)


def _is_ipv6(text: str) -> bool:
    try:
        return isinstance(ip_address(text), IPv6Address)
    except ValueError:
        return False


def http_url(value: str) -> str:
    """Return `value` without a trailing slash if it is an http or https URL with a host. Raises ValueError."""
    if re.search(r"[\x00-\x20\x7f\\]", value):  # urlsplit drops some of them
        raise ValueError("contains a space, a control character or a backslash")
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"is not a valid URL: {error}") from error
    if not valid:
        raise ValueError("is not an http:// or https:// URL with a host")
    return value.rstrip("/")


def base_url(value: str) -> str:
    """Like http_url, for a URL to which paths are appended: no user name, query or fragment. Raises ValueError."""
    url = http_url(value)
    if set(url) & set("?#@ "):
        raise ValueError("contains more than a host, a port and a path")
    return url


def is_wildcard(host: str) -> bool:
    """Return whether `host` is the unspecified address: 0.0.0.0 or ::."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
