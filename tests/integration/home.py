"""A whole HOME_PROFILE on free ports: the three daemons as processes, and a real engine under them.

Owns the processes: they are ended by SIGTERM when the block is left, and their exit statuses are checked.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.engines.cache import cache_root
from tests.engines.llama_server import Archive

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 40.0
POLL_S = 0.02
POOLS = """
[[pools]]
id = "default"
model = "file:{model}"
ctx = {ctx}
slots = {slots}
ports = [{port}]
flags = {flags}
{keys}
[pools.provisioning]
mode = "binary"
url = "file:{archive}"
checksum = "{checksum}"
allow_binary_downloads = true
"""


PORTS = (10_000 + number % 20_000 for number in itertools.count(100 * os.getpid()))
"""Below those that the kernel gives to whoever does not care, and others than tests have that run beside these."""


def free_port() -> int:
    """A port that nobody listens on, and that nobody else takes before it is used."""
    while True:
        port = next(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Home:
    """The running daemons by name, and where they listen."""

    directory: Path
    environ: dict[str, str]
    queen_port: int
    manager_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """queen-rbee's URL."""
        return f"http://127.0.0.1:{self.queen_port}"

    def start(self, name: str, **more: str) -> None:
        """Start the daemon `name` with `more` variables; its log is `name`.log in the directory."""
        with (self.directory / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", name.replace("-", "_")]
            # a port of its own for each daemon's metrics, or they would be in each other's way
            environ = {**self.environ, "PROMETHEUS_METRICS_PORT": str(free_port()), **more}
            self.processes[name] = subprocess.Popen(
                command, cwd=self.directory, env=environ, stdin=subprocess.DEVNULL, stderr=log
            )

    def stop(self, name: str) -> int:
        """End the daemon `name` by SIGTERM; its exit status."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def ask(self, method: str, path: str, body: object = None, *, port: int | None = None) -> tuple[int, Any]:
        """Status and parsed JSON of one request to the queen (or to `port`); status 0 while nobody listens."""
        connection = HTTPConnection("127.0.0.1", port or self.queen_port, timeout=60)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if data else None
        except ConnectionError:
            return 0, None
        finally:
            connection.close()

    def pool(self) -> dict[str, Any]:
        """The pool `default` as the queen knows it; empty while she does not."""
        _status, answer = self.ask("GET", "/v2/pools")
        return next((pool for pool in (answer or {}).get("pools", ()) if pool["pool_id"] == "default"), {})

    def until_ready(self) -> dict[str, Any]:
        """The pool, once it is ready. Fails with the provisioner's log."""
        pool: dict[str, Any] = self.until(lambda: self.pool() if self.pool().get("ready") else None)
        return pool

    def until(self, condition: Any, within_s: float = READY_WITHIN_S) -> Any:
        """What `condition` returns, once it is true. Fails with the daemons' logs."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if found := condition():
                return found
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not ended, f"{ended} ended:\n{self.logs()}"
            time.sleep(POLL_S)
        raise AssertionError(f"not within {within_s:g} s:\n{self.logs()}")

    def logs(self) -> str:
        """The end of every daemon's log."""
        return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in sorted(self.directory.glob("*.log")))

    def orchctl(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run orchctl against the queen."""
        command = [sys.executable, "-m", "orchctl", words[0], "--url", self.url, *words[1:]]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=self.environ, timeout=60, check=False
        )

    def stream(self, path: str, headers: Mapping[str, str] | None = None) -> "EventStream":
        """The events of a task as they come; to be closed."""
        return EventStream(self.queen_port, path, headers or {})


class EventStream:
    """Reads server-sent events from a plain socket, line by line; leaving it closes the connection."""

    def __init__(self, port: int, path: str, headers: Mapping[str, str]) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.request("GET", path, headers=dict(headers))
        self._answer = self._connection.getresponse()
        self.status = self._answer.status

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._answer.close()
        self._connection.close()

    def __iter__(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """(id, event, data) in turn."""
        fields: dict[str, str] = {}
        while line := self._answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}


def environment(directory: Path, **more: str) -> dict[str, str]:
    """HOME_PROFILE on free ports below `directory`; of this process's environment only what Python needs."""
    queen, manager = free_port(), free_port()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
    return {
        **kept,
        "ORCHESTRATORD_BIND_ADDR": f"127.0.0.1:{queen}",
        "POOL_MANAGERD_BIND_ADDR": f"127.0.0.1:{manager}",
        "ORCHD_POOL_MANAGERS": f"http://127.0.0.1:{manager}",
        "ENGINE_PROVISIONER_CACHE_DIR": str(directory / "cache"),
        "ENGINE_PROVISIONER_GPU_MASK": "cpu",
        "LLORCH_MODEL_DIRS": f"{cache_root()},{directory}",
        "LLAMA_ORCH_LOG_FORMAT": "json",
        **more,
    }


def as_node(directory: Path, node_id: str, **more: str) -> dict[str, str]:
    """As `environment`, in CLOUD_PROFILE: pool-managerd is a node of the queen beside it. Loopback needs no token."""
    environ = environment(directory, **more)
    return {
        **environ,
        "ORCHESTRATORD_CLOUD_PROFILE": "true",
        "ORCHESTRATORD_URL": f"http://{environ['ORCHESTRATORD_BIND_ADDR']}",
        "ORCHESTRATORD_NODE_TIMEOUT_MS": "5000",
        "ORCHESTRATORD_STALE_CHECK_INTERVAL_SECS": "1",
        "POOL_MANAGERD_NODE_ID": node_id,
        "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS": "1",
        "LLORCH_API_TOKEN": "a-token-for-tests-only",
        "AUTH_OPTIONAL": "true",
    }


@contextmanager
def home(
    directory: Path,
    archive: Archive,
    model: Path,
    *,
    slots: int = 2,
    ctx: int = 1024,
    flags: Sequence[str] = (),
    workloads: Sequence[str] = (),
    node_id: str | None = None,
    **more: str,
) -> Iterator[Home]:
    """A HOME_PROFILE with one pool, `default`, that is ready when the block begins; CLOUD_PROFILE with a `node_id`."""
    environ = as_node(directory, node_id, **more) if node_id else environment(directory, **more)
    queen, manager = (
        int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
    )
    engine = {"archive": archive.path, "checksum": archive.checksum, "port": free_port()}
    wanted: dict[str, object] = {"model": model, "ctx": ctx, "slots": slots, "flags": json.dumps(list(flags))}
    wanted["keys"] = f"workloads = {json.dumps(list(workloads))}" if workloads else ""
    (directory / "pools.toml").write_text(POOLS.format(**wanted, **engine))
    running = Home(directory, environ, queen, manager)
    with ExitStack() as ending:
        for name in ("queen-rbee", "pool-managerd", "engine-provisioner"):
            running.start(name)
            ending.callback(_stop_if_running, running, name)
        running.until_ready()
        yield running


def _stop_if_running(running: Home, name: str) -> None:
    if name in running.processes:
        status = running.stop(name)
        assert status == 0, f"{name} ended with status {status}:\n{running.logs()}"
