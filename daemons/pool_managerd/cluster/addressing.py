"""The URL at which the queen reaches this pool-managerd, where no variable says it."""

import socket
from urllib.parse import urlsplit

import trio

from llama_orch.addresses import Host, is_loopback, is_wildcard
from pool_managerd.settings import PoolManagerSettings

DEFAULT_PORTS = {"http": 80, "https": 443}


class AddressUnknown(Exception):
    """From which address the queen is reached cannot be found out now; the text says why."""


def scheme(settings: PoolManagerSettings) -> str:
    """What the API is spoken in."""
    return "https" if settings.tls.cert else "http"


async def address_of(settings: PoolManagerSettings) -> str:
    """The URL to be registered, looked up anew where it depends on the way to the queen. Raises AddressUnknown."""
    if settings.advertised:
        return settings.advertised
    bind = settings.bind
    if is_wildcard(bind.host):
        bind = Host(await _local_address(settings.queen_url or "", ":" in bind.host), bind.port)
    return f"{scheme(settings)}://{bind}"


async def _local_address(queen_url: str, six: bool) -> str:
    """The address from which a connection to the queen would start: of an IPv6 listener either kind, else IPv4."""
    parts = urlsplit(queen_url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 80)
    family = socket.AF_UNSPEC if six else socket.AF_INET
    reason: OSError | UnicodeError | None = None
    try:
        for kind, _type, _protocol, _name, target in await trio.socket.getaddrinfo(
            host, port, family, socket.SOCK_DGRAM
        ):
            try:
                return await _towards(kind, target)
            except OSError as error:
                reason = error
    except (OSError, UnicodeError) as error:
        reason = error
    words = getattr(reason, "strerror", None) or reason
    raise AddressUnknown(
        f"no address of this machine leads to {host}: {words}; POOL_MANAGERD_ADVERTISE_URL can name one"
    )


async def _towards(kind: int, target: object) -> str:
    with trio.socket.socket(kind, socket.SOCK_DGRAM) as sock:
        await sock.connect(target)
        return str(sock.getsockname()[0]).partition("%")[0]


def only_here(address: str, queen_url: str) -> bool:
    """Whether `address` is of this machine's loopback, and the queen is elsewhere."""
    return is_loopback(urlsplit(address).hostname or "") and not is_loopback(urlsplit(queen_url).hostname or "")
