"""Run pool-managerd as a process on free ports; engines are announced by handoff files.

The context manager owns the process: at exit it stops it with SIGTERM and checks that it exits with 0.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Literal, TypeVar

from tests.integration.home import free_port

WITHIN_S = 20.0
POLL_S = 0.01

T = TypeVar("T")


class UnixConnection(HTTPConnection):
    """HTTP over the Unix socket at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(os.fspath(self._path))


@dataclass
class PoolManager:
    directory: Path
    environ: dict[str, str]
    port: int
    metrics_port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def spool(self) -> Path:
        """The handoff directory."""
        return self.directory / "engines"

    @property
    def local_socket(self) -> Path:
        """The Unix socket, where requests need no token."""
        return self.directory / "pool-managerd.sock"

    def start(self) -> None:
        """Start the daemon and wait until it is ready."""
        command = [sys.executable, "-m", "pool_managerd"]
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.directory, env=self.environ, stderr=log)
        self.processes.append(process)
        self.until(lambda: self.ask("GET", "/ready")[0] == 200)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal `by` and return the exit status. Kills the daemon after WITHIN_S."""
        process = self.processes.pop()
        process.send_signal(by)
        try:
            return process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def announce(self, url: str, name: str = "default-r0.json", **fields: object) -> None:
        """Publish a handoff file as engine-provisioner does: write it under a temporary name, then rename it."""
        document = {"pool_id": "default", "engine_version": "b1", "url": url, "device_mask": "cpu"}
        draft = self.spool / f".{name}.tmp"
        draft.write_text(json.dumps(document | fields))
        draft.rename(self.spool / name)

    def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, connection: HTTPConnection | None = None
    ) -> tuple[int, Any]:
        """Return status and parsed JSON of one request. Status 0: the connection failed."""
        connection = connection or HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if data else None
        except ConnectionError:
            return 0, None
        finally:
            connection.close()

    def pool(self, pool_id: str = "default") -> dict[str, Any]:
        """Return the status of a pool, or an empty dict if it is unknown."""
        status, pool = self.ask("GET", f"/v2/pools/{pool_id}/status")
        return pool if status == 200 else {}

    def until(self, condition: Callable[[], T | Literal[False] | None]) -> T:
        """Poll `condition` and return its first true result. Fails with the log after WITHIN_S."""
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(POLL_S)
        raise AssertionError(f"condition not met within {WITHIN_S:g} s:\n{self.log()}")

    def log(self) -> str:
        """Return the whole log, one JSON object per line."""
        return (self.directory / "log").read_text()

    def metrics(self) -> str:
        connection = HTTPConnection("127.0.0.1", self.metrics_port, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text


@contextmanager
def pool_manager(directory: Path, **environ: str) -> Iterator[PoolManager]:
    """Start pool-managerd with `environ` as additional variables and wait until it is ready."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
    metrics_port = free_port()
    settings = {
        "POOL_MANAGERD_BIND_ADDR": f"127.0.0.1:{free_port()}",
        "PROMETHEUS_METRICS_PORT": str(metrics_port),
        "POOL_MANAGERD_RUNTIME_DIR": "engines",
        "LLAMA_ORCH_LOG_FORMAT": "json",
        **environ,
    }
    port = int(settings["POOL_MANAGERD_BIND_ADDR"].rpartition(":")[2])
    manager = PoolManager(directory, {**inherited, **settings}, port, metrics_port)
    manager.spool.mkdir()
    try:
        manager.start()
        yield manager
    finally:
        status = manager.stop() if manager.processes else 0
    assert status == 0, f"pool-managerd exited with status {status}:\n{manager.log()}"
