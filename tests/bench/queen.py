"""Run queen-rbee alone on its own core, with a pool of a simulated pool-managerd, or in CLOUD_PROFILE.

Owns the process, which gets SIGTERM at the end of the block, and the simulated pool-managerd, which only answers long
polls.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from llama_orch.contracts.pools import PoolList, PoolState, PoolStatus, ReplicaStatus
from tests.bench.figures import Cost, cores, cost
from tests.integration.home import free_port

READY_WITHIN_S = 30.0
STOP_WITHIN_S = 50.0
POLL_S = 0.02
MODEL = "tiny"


def pool(url: str, slots: int, ctx: int = 1 << 20) -> PoolStatus:
    """Return a pool `default` with one llama-server at `url`."""
    replica = ReplicaStatus(replica_id="r0", url=url, ready=True, slots_total=slots, slots_free=slots)
    return PoolStatus(
        pool_id="default",
        state=PoolState.READY,
        live=True,
        ready=True,
        draining=False,
        slots_total=slots,
        slots_free=slots,
        engine="llamacpp",
        engine_version="bench",
        models_available=[MODEL],
        ctx_max=ctx,
        replicas=[replica],
    )


@dataclass(frozen=True)
class Queen:
    """A running queen-rbee with its own `directory`."""

    process: subprocess.Popen[bytes]
    directory: Path
    port: int
    token: str | None = None

    @property
    def cost(self) -> Cost:
        """Resource usage so far."""
        return cost(self.process.pid)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request. Return the status and the parsed JSON (or text); status 0 if the connection is refused."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read()
            kind = answer.headers.get_content_type()
            return answer.status, json.loads(data) if kind == "application/json" else data.decode()
        except ConnectionError:
            return 0, None
        finally:
            connection.close()

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()


@contextmanager
def queen(known: PoolStatus, **environ: str) -> Iterator[Queen]:
    """Run queen-rbee with one pool until the end of the block, starting when it is ready. `environ` adds variables."""
    with pool_manager(known) as url, _running("/ready", ORCHD_POOL_MANAGERS=url, **environ) as running:
        yield running


@contextmanager
def cloud_queen(token: str, **environ: str) -> Iterator[Queen]:
    """Run queen-rbee in CLOUD_PROFILE without nodes. `environ` adds variables."""
    cloud = {"ORCHESTRATORD_CLOUD_PROFILE": "true", "LLORCH_API_TOKEN": token}
    with _running("/health", **cloud, **environ) as running:
        yield running


@contextmanager
def _running(path: str, **environ: str) -> Iterator[Queen]:
    """Run queen-rbee. The block starts when it answers `path` with 200."""
    with tempfile.TemporaryDirectory(prefix="bench-queen-") as name:
        directory, port = Path(name), free_port()
        process = _launch(directory, port, environ)
        running = Queen(process, directory, port, environ.get("LLORCH_API_TOKEN"))
        try:
            _until_answered(running, path)
            yield running
        finally:
            _end(running)


def _launch(directory: Path, port: int, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    for name in ("engines", "state"):
        (directory / name).mkdir(exist_ok=True)
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
    settings = {
        "ORCHESTRATORD_BIND_ADDR": f"127.0.0.1:{port}",
        "ORCHD_RUNTIME_DIR": str(directory / "engines"),
        "STATE_DIRECTORY": str(directory / "state"),
        "PROMETHEUS_METRICS_PORT": str(free_port()),
        "LLAMA_ORCH_LOG_FORMAT": "json",
        "RUST_LOG": "warn",
    }
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "queen_rbee"],
            cwd=directory,
            env={**inherited, **settings, **environ},
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    os.sched_setaffinity(process.pid, {cores()[0]})
    return process


def killed_and_started(running: Queen, path: str = "/health", **environ: str) -> Queen:
    """Kill a queen-rbee with SIGKILL, and start it again with its state. The caller ends what it gets by `ended`."""
    running.process.kill()
    running.process.wait()
    again = Queen(_launch(running.directory, running.port, environ), running.directory, running.port, running.token)
    _until_answered(again, path)
    return again


def _until_answered(running: Queen, path: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while running.ask("GET", path)[0] != 200:
        assert running.process.poll() is None, f"queen-rbee exited:\n{running.log[-3000:]}"
        assert time.monotonic() < deadline, f"queen-rbee is not ready:\n{running.log[-3000:]}"
        time.sleep(POLL_S)


def _end(running: Queen) -> None:
    running.process.send_signal(signal.SIGTERM)
    try:
        status = running.process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.wait()
        raise
    if status != 0:
        print(f"queen-rbee exited with status {status}:\n{running.log[-3000:]}", file=sys.stderr)


@contextmanager
def pool_manager(known: PoolStatus) -> Iterator[str]:
    """Run a simulated pool-managerd with a single pool that never changes, and yield its URL."""
    stopping = threading.Event()
    answer = PoolList(pools=[known], count=1, revision=1).model_dump_json().encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wait_ms = parse_qs(urlsplit(self.path).query).get("wait_ms", ["0"])[0]
            if stopping.wait(int(wait_ms) / 1000):
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
