"""The network interface that routes to the queen: its hardware addresses, and whether a magic packet wakes the machine.

Sources: netdevice(7), Documentation/ABI/testing/sysfs-class-net and sysfs-devices-power of the kernel. The functions
read files and block: run them in a thread.
"""

import fcntl
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from llama_orch.contracts.wake import MACS_MAX, Wake, mac_address

NET = Path("/sys/class/net")
IF_INET6 = Path("/proc/net/if_inet6")
SIOCGIFADDR, SIOCGIFBRDADDR = 0x8915, 0x8919
NAME_MAX = 15


@dataclass(frozen=True)
class Unwakeable:
    """The machine could not be woken over the network; `reason` says why."""

    reason: str


@dataclass(frozen=True)
class Interface:
    """A network interface; `broadcast` is the broadcast address of its IPv4 network."""

    name: str
    broadcast: str | None = None


def interface_with(address: str, net: Path = NET) -> Interface | None:
    """Return the interface that has this address, if there is one."""
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        name = _with_ipv6(found)
    else:
        name = next((name for name in _names(net) if _ipv4(name, SIOCGIFADDR) == address), None)
    return Interface(name, _ipv4(name, SIOCGIFBRDADDR)) if name else None


def _names(net: Path) -> list[str]:
    """Return the names of all interfaces. socket.if_nameindex() needs netlink, which the unit's sandbox forbids."""
    try:
        return sorted(path.name for path in net.iterdir())
    except OSError:
        return []


def _ipv4(name: str, request: int) -> str | None:
    """Return an IPv4 address of the interface, as netdevice(7) describes; None if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        answer = fcntl.ioctl(sock, request, struct.pack("256s", name.encode()[:NAME_MAX]))
        found = socket.inet_ntoa(answer[20:24])
        return found if found != "0.0.0.0" else None  # noqa: S104 -- not an address to bind
    return None


def _with_ipv6(address: IPv6Address) -> str | None:
    with suppress(OSError):
        for line in IF_INET6.read_text().splitlines():
            fields = line.split()
            if fields and fields[0] == address.packed.hex():
                return fields[-1]
    return None


def wake_through(interface: Interface, net: Path = NET) -> Wake | Unwakeable:
    """Return how the machine is woken through `interface`, or why it cannot be.

    A bridge, bond or VLAN is woken through the ports below it. A port wakes the machine if Wake-on-LAN is enabled, for
    which its driver sets `power/wakeup`.
    """
    ports = _ports(net / interface.name)
    macs = _macs([net / interface.name, *ports])
    if not macs:
        return Unwakeable(f"interface {interface.name}, which routes to the queen, has no hardware address")
    if not any(_read(port / "device" / "power" / "wakeup") == "enabled" for port in ports):
        names = ", ".join(port.name for port in ports)
        return Unwakeable(f"Wake-on-LAN is not enabled on {names}, through which it reaches the queen")
    return Wake(macs=macs, broadcast=interface.broadcast)


def _ports(interface: Path, depth: int = 4) -> list[Path]:
    """Return the interfaces at the bottom of `interface`: itself, if none is below it."""
    below = sorted(link.name.removeprefix("lower_") for link in interface.glob("lower_*")) if depth else []
    return [port for name in below for port in _ports(interface.parent / name, depth - 1)] or [interface]


def _macs(interfaces: Iterable[Path]) -> list[str]:
    macs: list[str] = []
    for interface in interfaces:
        with suppress(ValueError):
            macs.append(mac_address(_read(interface / "address")))
    return list(dict.fromkeys(macs))[:MACS_MAX]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
