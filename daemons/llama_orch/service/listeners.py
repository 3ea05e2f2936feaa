"""The listening sockets of a daemon: `api` and `metrics` on TCP, `local` on a Unix socket.

Each is inherited from systemd under that name, or bound by the daemon. The caller owns the returned sockets.
"""

import errno
import logging
import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

from llama_orch.addresses import Host
from llama_orch.service import drop_ins
from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.service.run import Service
from llama_orch.service.sockets import BACKLOG, adopt, bind, disagreement, inherited_fds, unassigned
from llama_orch.settings.types import Secret
from llama_orch.telemetry.events.service import NON_LOOPBACK_OPEN, SOCKET_DISAGREES
from llama_orch.telemetry.records import emit

PROFILE_VARIABLE = "ORCHESTRATORD_CLOUD_PROFILE"
"""On it depends the default address."""

log = logging.getLogger(__name__)


def effective_address(service: Service, name: str, address: Host, variable: str) -> Host:
    """Return the effective address of the listener `name`: that of the inherited socket, or else `address`.

    Warns if the inherited socket has another address than `variable` sets, with a hint, and if no interface has the
    address.
    """
    fds = inherited_fds(service.environ, os.getpid()).get(name, [])
    with ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in adopt([os.dup(fd) for fd in fds])]
        actual = disagreement(sockets, address)
        if actual:
            listed = ", ".join(map(str, actual))
            advice = _advice(service.name, name, variable, actual[0])
            emit(SOCKET_DISAGREES, name=name, actual=listed, variable=variable, wanted=address, advice=advice)
        for absent in unassigned(sockets):
            log.warning("%s: no interface has this address yet; the %s socket works once one has it", absent, name)
    return actual[0] if actual else address


def _advice(daemon: str, name: str, variable: str, actual: Host) -> str:
    """Return how to move the socket or to adapt the configuration, and which file to change."""
    service, file = f"{daemon}.service", f"/etc/llama-orch/{daemon}.env"
    unit = f"{daemon}.socket" if name == "api" else f"{daemon}-{name}.socket"
    command = f"systemctl daemon-reload && systemctl restart {unit} {service}"
    if found := drop_ins.setting(unit, "ListenStream"):
        value = actual if name == "api" else actual.port
        return f"{found} sets ListenStream=: remove that, or set {variable} in {file} to {value}; then: {command}"
    for named in (variable, PROFILE_VARIABLE, "EnvironmentFile"):
        if found := drop_ins.setting(service, named):
            inert = f"{found} sets {named}, which does not move the socket"
            return f"{inert}: set {'it' if named == variable else variable} in {file} instead; then: {command}"
    return f"To move the socket: {command}"


def tcp(service: Service, name: str, address: Host, purpose: str, variable: str) -> list[socket.socket]:
    """Return the inherited sockets, or sockets bound to `address`.

    `purpose` and `variable` are for the error message. Raises StartupError if a bind fails.
    """
    fds = inherited_fds(service.environ, os.getpid()).get(name)
    return adopt(fds) if fds else bind(address, purpose, variable)


def local(service: Service, path: Path) -> list[socket.socket]:
    """Return the inherited Unix socket `local`, or one bound at `path` with mode 0660.

    The mode and group of the file control access; requests over it need no token. Replaces a socket that a dead daemon
    left at `path`. Raises StartupError.
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
        hint = f"The daemon needs write access to the directory: ls -ld {path.parent}"
        if error.errno == errno.EADDRINUSE:
            hint = f"Another {service.name} is running: fuser -v {path}"
        raise StartupError(what, hint, ExitStatus.CANNOT_CREATE) from error
    return [sock]


def _clear(path: Path) -> None:
    """Remove a stale socket at `path`. If it is in use, it stays, and bind fails with EADDRINUSE."""
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


def log_access(address: Host, token: Secret | None, second: Secret | None = None, over: str | None = None) -> None:
    """Log how the API at `address` is protected: TLS (`over`), the fingerprints of the tokens, or the lack of one."""
    if over:
        log.info("%s is served over %s", address, over)
    if token and second:
        log.info("requests to %s need the token %s, or the second one, %s", address, token, second)
    elif token:
        log.info("requests to %s need the token %s", address, token)
    elif not address.loopback:
        emit(NON_LOOPBACK_OPEN, address=address)
