"""The listeners of a daemon by their names: `api` and `metrics` on TCP, `local` on a Unix socket.

Each is the socket that systemd passed under that name, or one that the daemon binds for itself. Whoever calls these
functions owns the sockets.
"""

import errno
import logging
import os
import socket
import stat
from pathlib import Path

from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.service.run import Service
from llama_orch.service.sockets import BACKLOG, adopt, bind, disagreement, inherited_fds
from llama_orch.settings.types import Host, Secret
from llama_orch.telemetry.events import NON_LOOPBACK_OPEN, SOCKET_DISAGREES
from llama_orch.telemetry.records import emit

log = logging.getLogger(__name__)


def tcp(service: Service, name: str, address: Host, purpose: str, variable: str) -> list[socket.socket]:
    """The sockets for `address`; `purpose` and `variable` are named where they cannot be had.

    Raises StartupError when a bind fails. Inherited sockets that listen elsewhere are used, and said so with the
    command that mends it.
    """
    fds = inherited_fds(service.environ, os.getpid()).get(name)
    if not fds:
        return bind(address, purpose, variable)
    sockets = adopt(fds)
    if actual := disagreement(sockets, address):
        unit = f"{service.name}.socket" if name == "api" else f"{service.name}-{name}.socket"
        emit(
            SOCKET_DISAGREES,
            name=name,
            actual=actual,
            variable=variable,
            wanted=address,
            command=f"systemctl daemon-reload && systemctl restart {unit} {service.name}.service",
        )
    return sockets


def local(service: Service, path: Path) -> list[socket.socket]:
    """The Unix socket named `local`, or one bound at `path` with mode 0660.

    Who may open it is decided by the file's mode and group; requests that come by it need no token. A socket that a
    dead daemon left at `path` is replaced. Raises StartupError.
    """
    if fds := inherited_fds(service.environ, os.getpid()).get("local"):
        return adopt(fds)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        before = os.umask(0o117)
        try:
            sock.bind(os.fspath(path))
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        what = f"cannot listen on {path} for local requests: {error.strerror or error}"
        hint = f"The daemon must be able to write there: ls -ld {path.parent}"
        if error.errno == errno.EADDRINUSE:
            hint = f"Another {service.name} runs here: fuser -v {path}"
        raise StartupError(what, hint, ExitStatus.CANNOT_CREATE) from error
    return [sock]


def _clear(path: Path) -> None:
    """Remove a socket at `path` that nobody listens on; OSError (EADDRINUSE) where somebody does."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()


def say_access(address: Host, token: Secret | None, second: Secret | None = None, over: str | None = None) -> None:
    """Log over what the API is served, where that is not plain HTTP, and the fingerprint of the token that requests
    need, or that other machines are refused for want of one."""
    if over:
        log.info("%s is served over %s", address, over)
    if token and second:
        log.info("requests to %s need the token %s, or the second one, %s", address, token, second)
    elif token:
        log.info("requests to %s need the token %s", address, token)
    elif not address.loopback:
        emit(NON_LOOPBACK_OPEN, address=address)
