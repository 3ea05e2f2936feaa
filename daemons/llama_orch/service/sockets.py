"""Listening sockets: inherited from systemd by name (LISTEN_FDNAMES), or bound by the daemon itself.

Parses the variables of sd_listen_fds(3) itself, in one way with and without systemd-python: it is a matter of
three variables, and the descriptors' names are all that matters.
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
    """The descriptors that systemd passed to process `pid`, by their FileDescriptorName."""
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
    """Socket objects that own the inherited descriptors `fds`."""
    return [socket.socket(fileno=fd) for fd in fds]


def bind(address: Host, purpose: str, variable: str) -> list[socket.socket]:
    """Bind and listen on every address that `address.host` stands for; the caller owns the sockets.

    Raises StartupError (EX_UNAVAILABLE) that names the port and the variable to change.
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
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one, such as a..b
        for sock in bound:
            sock.close()
        raise _unavailable(address, purpose, variable, error) from error
    return bound


def _resolve(address: Host) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    # `localhost` often stands for both families; with port 0 they would get different ports
    return found[:1] if address.port == 0 else found  # type: ignore[return-value]


def _unavailable(address: Host, purpose: str, variable: str, error: OSError | UnicodeError) -> StartupError:
    if isinstance(error, UnicodeError):
        what = f"cannot listen on {address} for the {purpose}: {address.host} is no host name"
        hint = f"Set {variable} to an address of this machine."
    elif error.errno == errno.EADDRINUSE:
        what = f"{address} is already in use, it is wanted for the {purpose}"
        hint = f"See who holds it: ss -ltnp 'sport = :{address.port}'. Or set {variable} to another port."
    elif error.errno == errno.EACCES:
        what = f"cannot listen on {address} for the {purpose}: {error.strerror}"
        hint = f"Ports below 1024 are for root, or for systemd's sockets. Set {variable} to another port."
    else:
        what = f"cannot listen on {address} for the {purpose}: {error.strerror or error}"
        hint = f"Set {variable} to an address of this machine."
    return StartupError(what, hint, ExitStatus.UNAVAILABLE)


def disagreement(sockets: list[socket.socket], address: Host) -> list[Host]:
    """The addresses that the inherited sockets really listen on, if the configured one is not among them."""
    actual = {Host(*sock.getsockname()[:2]) for sock in sockets if sock.family != socket.AF_UNIX}
    try:
        wanted = {Host(*sockaddr[:2]) for *_rest, sockaddr in _resolve(address)}  # type: ignore[arg-type]
    except (OSError, UnicodeError):
        wanted = {address}
    return [] if actual & wanted else sorted(actual, key=str)


def unassigned(sockets: list[socket.socket]) -> list[Host]:
    """The addresses of inherited sockets that no interface has now: systemd binds them all the same (FreeBind=)."""
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
