"""Hosts, ports and URLs: what they may look like, and what an address means."""

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or `localhost`, names this machine without asking a name server."""
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
    """A host and a TCP port; port 0 asks the kernel for one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def parse_address(value: Any) -> Any:
    """`host:port` or `[v6]:port` as a Host; ValueError says which part is wrong."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(?:\[([^\s\[\]]+)\]|([^\s:\[\]/]+)):([0-9]{1,5})", value)
    if match is None:
        raise ValueError("is not host:port")
    if match[1] and not _is_ipv6(match[1]):
        raise ValueError("has no IPv6 address between its brackets")
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
    """`value` if it is an http or https URL with a host; ValueError says what is missing."""
    if re.search(r"[\x00-\x20\x7f\\]", value):  # urlsplit drops some of them, and they would be sent all the same
        raise ValueError("has a blank, a control character or a backslash in it")
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from error
    if not valid:
        raise ValueError("is not an http:// or https:// URL with a host")
    return value.rstrip("/")


def base_url(value: str) -> str:
    """As http_url, of a URL that paths are put behind; ValueError for one with a name, a query or a fragment in it."""
    url = http_url(value)
    if set(url) & set("?#@ "):
        raise ValueError("has more than a host, a port and a path")
    return url


def is_wildcard(host: str) -> bool:
    """Whether `host` is the address that stands for all: 0.0.0.0, or that of IPv6."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
