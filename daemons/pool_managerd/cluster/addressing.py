"""The URL under which the queen reaches this pool-managerd."""

import socket
from urllib.parse import urlsplit

import trio

from llama_orch.addresses import Host, is_loopback, is_wildcard
from llama_orch.contracts.wake import Wake
from pool_managerd.cluster.interfaces import Unwakeable, interface_with, wake_through
from pool_managerd.settings import PoolManagerSettings

DEFAULT_PORTS = {"http": 80, "https": 443}


class AddressUnknown(Exception):
    """The local address towards the queen cannot be determined now. The text says why."""


def scheme(settings: PoolManagerSettings) -> str:
    """Return the scheme of the API's URL."""
    return "https" if settings.tls.cert else "http"


async def address_of(settings: PoolManagerSettings) -> str:
    """Return the URL to register; one that depends on the route to the queen is looked up each time.

    Raises AddressUnknown.
    """
    if settings.advertised:
        return settings.advertised
    bind = settings.bind
    if is_wildcard(bind.host):
        bind = Host(await _local_address(settings.queen_url or "", ":" in bind.host), bind.port)
    return f"{scheme(settings)}://{bind}"


async def wake_of(settings: PoolManagerSettings) -> Wake | Unwakeable:
    """Return how this machine is woken over the network that leads to the queen, or why it cannot be."""
    try:
        address = await _local_address(settings.queen_url or "", ipv6=True)
    except AddressUnknown as error:
        return Unwakeable(str(error))
    interface = await trio.to_thread.run_sync(interface_with, address)
    if settings.wake_macs:
        return Wake(macs=list(settings.wake_macs), broadcast=interface.broadcast if interface else None)
    if interface is None:
        return Unwakeable(f"no interface has the address {address}, from which it reaches the queen")
    if is_loopback(address):
        return Unwakeable("the queen runs on this machine, and would sleep with it")
    return await trio.to_thread.run_sync(wake_through, interface)


async def _local_address(queen_url: str, ipv6: bool) -> str:
    """Return the source address of connections to the queen: IPv4 only, unless the API listens on IPv6."""
    parts = urlsplit(queen_url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 80)
    family = socket.AF_UNSPEC if ipv6 else socket.AF_INET
    failure: OSError | UnicodeError | None = None
    try:
        for found_family, _type, _protocol, _name, target in await trio.socket.getaddrinfo(
            host, port, family, socket.SOCK_DGRAM
        ):
            try:
                return await _source_address(found_family, target)
            except OSError as error:
                failure = error
    except (OSError, UnicodeError) as error:
        failure = error
    reason = getattr(failure, "strerror", None) or failure
    raise AddressUnknown(f"no local address has a route to {host}: {reason}; set POOL_MANAGERD_ADVERTISE_URL")


async def _source_address(family: int, target: object) -> str:
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        await sock.connect(target)
        return str(sock.getsockname()[0]).partition("%")[0]


def is_only_local(address: str, queen_url: str) -> bool:
    """Whether `address` is on loopback although the queen runs on another machine."""
    return is_loopback(urlsplit(address).hostname or "") and not is_loopback(urlsplit(queen_url).hostname or "")
