"""Start a complete HOME_PROFILE on free ports: the three daemons as processes, with a real engine.

The context managers own the processes: at exit they stop each with SIGTERM and check that it exits with 0.
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

from engine_provisioner.modes import archives
from tests.engines.cache import cache_root, cached
from tests.engines.llama_server import Archive

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 40.0
POLL_S = 0.02
POOLS_TOML = """
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

ONE_THREAD = ("--threads", "1")
"""Flags of engines. The threads of llama-server spin while they wait for each other: if other processes use the cores,
two threads need up to fifty times the CPU time of one for the same tokens."""

PORTS = (10_000 + number % 20_000 for number in itertools.count(100 * os.getpid()))
"""Candidate ports: below the kernel's ephemeral range, with a different start in each parallel test process."""


def free_port() -> int:
    """Return a port on which nothing listens. No parallel test process gets the same one."""
    while True:
        port = next(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Home:
    """A set of running daemons, by name, and their addresses. Logs are `directory`/NAME.log."""

    directory: Path
    environ: dict[str, str]
    queen_port: int
    manager_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    token: str | None = None
    """Sent by `ask`, if set."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.queen_port}"

    def start(self, name: str, **more: str) -> None:
        """Start the daemon `name` with `more` as additional environment variables."""
        with (self.directory / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", name.replace("-", "_")]
            # each daemon needs its own metrics port, otherwise they collide
            environ = {**self.environ, "PROMETHEUS_METRICS_PORT": str(free_port()), **more}
            self.processes[name] = subprocess.Popen(
                command, cwd=self.directory, env=environ, stdin=subprocess.DEVNULL, stderr=log
            )

    def stop(self, name: str) -> int:
        """Stop the daemon `name` with SIGTERM and return its exit status. Kills it after STOP_WITHIN_S."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def ask(self, method: str, path: str, body: object = None, *, port: int | None = None) -> tuple[int, Any]:
        """Return status and parsed JSON of one request to the queen, or to `port`. Status 0: the connection failed."""
        connection = HTTPConnection("127.0.0.1", port or self.queen_port, timeout=60)
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if data else None
        except ConnectionError:
            return 0, None
        finally:
            connection.close()

    def pool(self) -> dict[str, Any]:
        """Return the pool `default` as the queen reports it, or an empty dict if it does not list it."""
        _status, answer = self.ask("GET", "/v2/pools")
        return next((pool for pool in (answer or {}).get("pools", ()) if pool["pool_id"] == "default"), {})

    def until_ready(self) -> dict[str, Any]:
        """Wait until the pool `default` is ready and return it."""
        found: dict[str, Any] = self.until(lambda: pool if (pool := self.pool()).get("ready") else None)
        return found

    def until(self, condition: Any, within_s: float = READY_WITHIN_S) -> Any:
        """Poll `condition` and return its first true result. Fails with the daemons' logs after `within_s` seconds."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if found := condition():
                return found
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not ended, f"{ended} exited:\n{self.logs()}"
            time.sleep(POLL_S)
        raise AssertionError(f"condition not met within {within_s:g} s:\n{self.logs()}")

    def logs(self) -> str:
        """Return the last 3000 characters of each daemon's log."""
        return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in sorted(self.directory.glob("*.log")))

    def orchctl(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run orchctl against the queen."""
        command = [sys.executable, "-m", "orchctl", words[0], "--url", self.url, *words[1:]]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=self.environ, timeout=60, check=False
        )

    def stream(self, path: str, headers: Mapping[str, str] | None = None) -> "EventStream":
        """Open an event stream. The caller must close it."""
        return EventStream(self.queen_port, path, headers or {})


class EventStream:
    """Server-sent events of one GET request. Leaving the context closes the connection."""

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
        """Yield (id, event, data) as they arrive."""
        fields: dict[str, str] = {}
        while line := self._answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}


def environment(directory: Path, **more: str) -> dict[str, str]:
    """Return variables for HOME_PROFILE on free ports, with all files below `directory`.

    Of this process's environment, it passes on only what Python needs.
    """
    queen, manager = free_port(), free_port()
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
    return {
        **inherited,
        "ORCHESTRATORD_BIND_ADDR": f"127.0.0.1:{queen}",
        "POOL_MANAGERD_BIND_ADDR": f"127.0.0.1:{manager}",
        "ORCHD_POOL_MANAGERS": f"http://127.0.0.1:{manager}",
        "ENGINE_PROVISIONER_CACHE_DIR": str(directory / "cache"),
        "ENGINE_PROVISIONER_GPU_MASK": "cpu",
        "LLORCH_MODEL_DIRS": f"{cache_root()},{directory}",
        "LLAMA_ORCH_LOG_FORMAT": "json",
        **more,
    }


def node_environment(directory: Path, node_id: str, **more: str) -> dict[str, str]:
    """Return variables for CLOUD_PROFILE, where pool-managerd is a node of a queen on the same machine.

    AUTH_OPTIONAL lets tests use loopback without a token.
    """
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


def share_unpacked(archive: Archive, cache_dir: Path) -> None:
    """Give the new cache of an engine-provisioner the engine in `archive`, as if it had unpacked it before.

    The tree is made once for each machine, as engine-provisioner makes it: 45 MB in a second. Whether it does is the
    subject of test_engine_provisioner.py.
    """
    engines = cached(
        f"engines-{archive.sha256[:12]}", lambda draft: archives.unpack(archive.path, draft / archive.sha256)
    )
    cache_dir.mkdir()
    (cache_dir / "engines").symlink_to(engines)


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
    """Run the daemons with one pool, `default`, and wait until it is ready. With a `node_id`, in CLOUD_PROFILE."""
    environ = node_environment(directory, node_id, **more) if node_id else environment(directory, **more)
    queen, manager = (
        int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
    )
    engine = {"archive": archive.path, "checksum": archive.checksum, "port": free_port()}
    all_flags = json.dumps([*ONE_THREAD, *flags])
    pool: dict[str, object] = {"model": model, "ctx": ctx, "slots": slots, "flags": all_flags}
    pool["keys"] = f"workloads = {json.dumps(list(workloads))}" if workloads else ""
    (directory / "pools.toml").write_text(POOLS_TOML.format(**pool, **engine))
    share_unpacked(archive, directory / "cache")
    running = Home(directory, environ, queen, manager)
    with ExitStack() as cleanup:
        for name in ("queen-rbee", "pool-managerd", "engine-provisioner"):
            running.start(name)
            cleanup.callback(stop_if_running, running, name)
        running.until_ready()
        yield running


def stop_if_running(running: Home, name: str) -> None:
    if name in running.processes:
        status = running.stop(name)
        assert status == 0, f"{name} exited with status {status}:\n{running.logs()}"
