"""Run queen-rbee and pool-managerd as processes, without an engine, and connect to each of their listeners.

The context manager owns the processes: at exit it stops each with SIGTERM and checks that it exits with 0.
"""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.home import Home, environment, free_port, stop_if_running

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Listener:
    """A listener of a daemon: a TCP port on loopback, with TLS if `tls` is set, or a Unix socket."""

    name: str
    address: int | Path
    tls: ssl.SSLContext | None = None

    def connect(self) -> socket.socket:
        if isinstance(self.address, Path):
            connected = socket.socket(socket.AF_UNIX)
            connected.settimeout(TIMEOUT_S)
            try:
                connected.connect(os.fspath(self.address))
            except OSError:
                connected.close()
                raise
            return connected
        plain = socket.create_connection(("127.0.0.1", self.address), timeout=TIMEOUT_S)
        return self.tls.wrap_socket(plain) if self.tls else plain

    def status(self, request: bytes) -> int:
        """Send `request` and return the status of the response, 0 if the connection is closed without one."""
        with self.connect() as connection:
            connection.sendall(request)
            return status_of(read_all(connection))


def read_all(connection: socket.socket) -> bytes:
    """Read until the peer closes or resets the connection. Raises TimeoutError after TIMEOUT_S without data."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


def status_of(answer: bytes) -> int:
    """Return the status of an HTTP response, 0 if `answer` is not one."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


@dataclass
class TwoDaemons(Home):
    listeners: tuple[Listener, ...] = ()

    def pids(self) -> dict[str, int]:
        """Return the process id of each daemon that is still running."""
        return {name: process.pid for name, process in self.processes.items() if process.poll() is None}


def client_tls() -> ssl.SSLContext:
    """Return a client context that accepts any certificate. The tests cover HTTP over TLS, not TLS itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def two_daemons(directory: Path, **more: str) -> Iterator[TwoDaemons]:
    """Start both daemons and wait until every listener accepts connections."""
    environ = environment(directory, POOL_MANAGERD_RUNTIME_DIR=str(directory / "engines"), **more)
    environ["ORCHD_RUNTIME_DIR"] = environ["POOL_MANAGERD_RUNTIME_DIR"]
    queen, manager = (
        int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
    )
    metrics = {"queen-rbee": free_port(), "pool-managerd": free_port()}
    tls = client_tls() if "LLORCH_TLS_CERT_FILE" in more else None
    listeners = (
        Listener("queen-rbee api", queen, tls),
        Listener("queen-rbee metrics", metrics["queen-rbee"]),
        Listener("queen-rbee local", directory / "queen-rbee.sock"),
        Listener("pool-managerd api", manager, tls),
        Listener("pool-managerd metrics", metrics["pool-managerd"]),
        Listener("pool-managerd local", directory / "pool-managerd.sock"),
    )
    running = TwoDaemons(directory, environ, queen, manager, listeners=listeners)
    (directory / "engines").mkdir()
    with ExitStack() as cleanup:
        for name, port in metrics.items():
            running.start(name, PROMETHEUS_METRICS_PORT=str(port))
            cleanup.callback(stop_if_running, running, name)
        for listener in listeners:
            running.until(lambda there=listener: _answers(there))
        yield running


def _answers(listener: Listener) -> bool:
    try:
        listener.connect().close()
    except OSError:
        return False
    return True
