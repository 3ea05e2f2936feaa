"""Run a real llama-server for the duration of a block.

Owns the process: it is ended at the end of the block, or by the kernel if the test run dies before.
"""

import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
READY_WITHIN_S = 30.0
STOP_WITHIN_S = 1.0
POLL_S = 0.01


class EngineDied(Exception):
    """The engine exited or did not become healthy. The message ends with its last log lines."""


@dataclass(frozen=True)
class Engine:
    """A running llama-server. `url` has no trailing slash."""

    process: subprocess.Popen[bytes]
    log_file: Path
    url: str

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def log(self) -> str:
        """Return its output so far."""
        return self.log_file.read_text(errors="replace")


@contextmanager
def running_engine(
    executable: Path, model: Path, *, slots: int = 2, ctx: int = 512, port: int = 0, flags: tuple[str, ...] = ()
) -> Iterator[Engine]:
    """Run `executable` with `model` for the duration of the block. The engine is healthy when the block begins.

    `ctx` is the context of each slot, in tokens; `port` 0 selects a free one. Raises EngineDied.
    """
    with tempfile.TemporaryDirectory(prefix="llama-server-") as directory:
        log_file = Path(directory) / "log"
        process = _launch(executable, _arguments(model, slots, ctx, port, flags), log_file)
        try:
            yield Engine(process, log_file, _wait_until_healthy(process, log_file))
        finally:
            _end(process)


@asynccontextmanager
async def serving_engine(
    executable: Path, model: Path, *, slots: int = 2, ctx: int = 512, port: int = 0, flags: tuple[str, ...] = ()
) -> AsyncIterator[Engine]:
    """Variant of `running_engine` for trio, which does not block the loop."""
    with tempfile.TemporaryDirectory(prefix="llama-server-") as directory:
        log_file = Path(directory) / "log"
        process = _launch(executable, _arguments(model, slots, ctx, port, flags), log_file)
        try:
            url = await trio.to_thread.run_sync(_wait_until_healthy, process, log_file, abandon_on_cancel=True)
            yield Engine(process, log_file, url)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_end, process)


def _arguments(model: Path, slots: int, ctx: int, port: int, flags: tuple[str, ...]) -> list[str]:
    shape = ["-c", str(ctx * slots), "-np", str(slots), "--cont-batching", "--cache-ram", "0"]
    return ["-m", str(model), "--host", "127.0.0.1", "--port", str(port), *shape, "--metrics", "--slots", *flags]


def _launch(executable: Path, arguments: list[str], log_file: Path) -> subprocess.Popen[bytes]:
    # setpriv execs the server. The kernel kills it when the thread that started it ends (the main thread of a test).
    command = ["setpriv", "--pdeathsig", "KILL", str(executable), *arguments]
    with log_file.open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def _wait_until_healthy(process: subprocess.Popen[bytes], log_file: Path) -> str:
    deadline = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        found = LISTENING.search(log_file.read_text(errors="replace"))
        if found and _is_healthy(found.group(1)):
            return found.group(1)
        time.sleep(POLL_S)
    state = "is not ready" if process.returncode is None else f"exited with status {process.returncode}"
    tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-20:])
    raise EngineDied(f"the engine {state}:\n{tail}")


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, then SIGKILL after a short time, because a server that generates tokens often ignores SIGTERM."""
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
