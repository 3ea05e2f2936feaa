"""queen-rbee and pool-managerd as processes without an engine, and all their listeners.

Owns the processes: they are ended by SIGTERM when the block is left, and must then exit with 0.
"""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.home import Home, _stop_if_running, environment, free_port

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Listening:
    """A listener of a daemon: a TCP port, with TLS where `tls` is, or a Unix socket."""

    name: str
    address: int | Path
    tls: ssl.SSLContext | None = None

    def connect(self) -> socket.socket:
        """Open a connection."""
        if isinstance(self.address, Path):
            connected = socket.socket(socket.AF_UNIX)
            connected.settimeout(TIMEOUT_S)
            connected.connect(os.fspath(self.address))
            return connected
        plain = socket.create_connection(("127.0.0.1", self.address), timeout=TIMEOUT_S)
        return self.tls.wrap_socket(plain) if self.tls else plain

    def status(self, request: bytes) -> int:
        """The status of the answer to `request`; 0 when the connection is closed without one."""
        with self.connect() as connection:
            connection.sendall(request)
            return status_of(read_all(connection))


def read_all(connection: socket.socket) -> bytes:
    """Everything the other side sends until it closes or resets. Raises TimeoutError where it does neither."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


def status_of(answer: bytes) -> int:
    """The status of an HTTP answer, 0 where there is none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


@dataclass
class TwoDaemons(Home):
    """The running daemons; `listening` has every listener of both."""

    listening: tuple[Listening, ...] = ()

    def pids(self) -> dict[str, int]:
        """The process id of each daemon that still runs."""
        return {name: process.pid for name, process in self.processes.items() if process.poll() is None}


def client_tls() -> ssl.SSLContext:
    """A client that accepts any certificate: what is behind TLS is tested, not TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def two_daemons(directory: Path, **more: str) -> Iterator[TwoDaemons]:
    """Both daemons, answering when the block begins."""
    environ = environment(directory, POOL_MANAGERD_RUNTIME_DIR=str(directory / "engines"), **more)
    environ["ORCHD_RUNTIME_DIR"] = environ["POOL_MANAGERD_RUNTIME_DIR"]
    queen, manager = (
        int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
    )
    metrics = {"queen-rbee": free_port(), "pool-managerd": free_port()}
    tls = client_tls() if "LLORCH_TLS_CERT_FILE" in more else None
    listening = (
        Listening("queen-rbee api", queen, tls),
        Listening("queen-rbee metrics", metrics["queen-rbee"]),
        Listening("queen-rbee local", directory / "queen-rbee.sock"),
        Listening("pool-managerd api", manager, tls),
        Listening("pool-managerd metrics", metrics["pool-managerd"]),
        Listening("pool-managerd local", directory / "pool-managerd.sock"),
    )
    running = TwoDaemons(directory, environ, queen, manager, listening=listening)
    (directory / "engines").mkdir()
    with ExitStack() as ending:
        for name, port in metrics.items():
            running.start(name, PROMETHEUS_METRICS_PORT=str(port))
            ending.callback(_stop_if_running, running, name)
        for listener in listening:
            running.until(lambda there=listener: _answers(there))
        yield running


def _answers(listener: Listening) -> bool:
    try:
        listener.connect().close()
    except OSError:
        return False
    return True
