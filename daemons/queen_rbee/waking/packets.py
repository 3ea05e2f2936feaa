"""Magic packets of Wake-on-LAN, and where they are sent."""

import socket
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import urlsplit

import trio

from llama_orch.addresses import Host
from llama_orch.contracts.nodes import NodeView

PORT = 9
"""The discard service's. The interface looks for the packet's content and ignores the port."""
EVERYWHERE = "255.255.255.255"


def magic_packet(mac: str) -> bytes:
    """Return the 102 bytes that wake the interface with this hardware address, as in `52:54:00:12:34:56`."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16


def targets(node: NodeView, configured: Host | None) -> list[Host]:
    """Return where to send packets for `node`: only to the `configured` address, if there is one.

    Otherwise to the broadcast address of its network, and to its own, if that is known: a router that cannot forward
    the first may still know how to reach the second.
    """
    if configured:
        return [configured]
    found = [Host((node.wake.broadcast if node.wake else None) or EVERYWHERE, PORT)]
    host = urlsplit(node.address).hostname or ""
    try:
        address = IPv4Address(host)
    except AddressValueError:
        return found
    return found if address.is_loopback else [*found, Host(str(address), PORT)]


async def send(macs: Iterable[str], target: Host) -> None:
    """Send a magic packet for each address to `target`. Raises OSError."""
    found = await trio.socket.getaddrinfo(target.host.strip("[]"), target.port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _name, address = found[0]
    with trio.socket.socket(family, kind, protocol) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for mac in macs:
            await sock.sendto(magic_packet(mac), address)
