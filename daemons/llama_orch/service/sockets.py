"""Listening sockets: inherited from systemd by name (LISTEN_FDNAMES), or bound by the daemon itself.

The three variables of sd_listen_fds(3) are parsed here, so that it works the same without systemd-python.
"""

import errno
import os
import socket
from collections.abc import Mapping

from llama_orch.addresses import Host
from llama_orch.service.exit import ExitStatus, StartupError

FIRST_FD = 3
BACKLOG = 512


def inherited_fds(environ: Mapping[str, str], pid: int) -> dict[str, list[int]]:
    """Return the descriptors that systemd passed to process `pid`, by FileDescriptorName."""
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    given = environ.get("LISTEN_FDS", "")
    count = int(given) if given.isascii() and given.isdigit() else 0
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    for index in range(count):
        name = names[index] if index < len(names) and names[index] else "unknown"
        os.set_inheritable(FIRST_FD + index, False)
        found.setdefault(name, []).append(FIRST_FD + index)
    return found


def adopt(fds: list[int]) -> list[socket.socket]:
    """Return socket objects that own the inherited descriptors `fds`."""
    return [socket.socket(fileno=fd) for fd in fds]


def bind(address: Host, purpose: str, variable: str) -> list[socket.socket]:
    """Bind and listen on every address that `address.host` resolves to. The caller owns the sockets.

    Raises StartupError (EX_UNAVAILABLE), which names the port and the variable to change.
    """
    bound: list[socket.socket] = []
    try:
        for family, kind, proto, _name, sockaddr in _resolve(address):
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
            bound.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(sockaddr)
            sock.listen(BACKLOG)
    except (OSError, UnicodeError) as error:  # UnicodeError: an invalid name, such as a..b
        for sock in bound:
            sock.close()
        raise _unavailable(address, purpose, variable, error) from error
    return bound


def _resolve(address: Host) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    # `localhost` often resolves to both families; with port 0 they would get different ports
    return found[:1] if address.port == 0 else found  # type: ignore[return-value]


def _unavailable(address: Host, purpose: str, variable: str, error: OSError | UnicodeError) -> StartupError:
    if isinstance(error, UnicodeError):
        what = f"cannot listen on {address} for the {purpose}: invalid host name {address.host}"
        hint = f"Set {variable} to an address of this machine."
    elif error.errno == errno.EADDRINUSE:
        what = f"cannot listen on {address} for the {purpose}: {address} is already in use"
        hint = f"Find the process with ss -ltnp 'sport = :{address.port}', or set {variable} to another port."
    elif error.errno == errno.EACCES:
        what = f"cannot listen on {address} for the {purpose}: {error.strerror}"
        hint = f"Ports below 1024 require root or a systemd socket. Set {variable} to another port."
    else:
        what = f"cannot listen on {address} for the {purpose}: {error.strerror or error}"
        hint = f"Set {variable} to an address of this machine."
    return StartupError(what, hint, ExitStatus.UNAVAILABLE)


def disagreement(sockets: list[socket.socket], address: Host) -> list[Host]:
    """Return the addresses of the inherited sockets if the configured one is not among them, else []."""
    actual = {Host(*sock.getsockname()[:2]) for sock in sockets if sock.family != socket.AF_UNIX}
    try:
        configured = {Host(*sockaddr[:2]) for *_rest, sockaddr in _resolve(address)}  # type: ignore[arg-type]
    except (OSError, UnicodeError):
        configured = {address}
    return [] if actual & configured else sorted(actual, key=str)


def unassigned(sockets: list[socket.socket]) -> list[Host]:
    """Return the addresses that no interface has: systemd binds sockets to them nevertheless (FreeBind=)."""
    found = []
    for sock in (each for each in sockets if each.family != socket.AF_UNIX):
        host, port = sock.getsockname()[:2]
        with socket.socket(sock.family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, 0, *sock.getsockname()[2:]))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    found.append(Host(host, port))
    return found
