"""Run engine-provisioner without systemd, and read its reports, handoff files, log and local API."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from tests.connections import receive_some

READY_WITHIN_S = 90.0
STOP_WITHIN_S = 20.0
POLL_S = 0.02


class Provisioner:
    """A running daemon. `directory` is its working directory and has its pools.toml."""

    def __init__(self, directory: Path, process: trio.Process) -> None:
        self.directory = directory
        self.process = process
        self.handoff_dir = directory / ".runtime/engines"

    def report(self, pool_id: str) -> ProvisioningReport | None:
        """Return the status report of the pool, as pool-managerd reads it, or None."""
        path = self.handoff_dir / f"status/{pool_id}.json"
        return ProvisioningReport.model_validate_json(path.read_bytes()) if path.exists() else None

    def handoff(self, pool_id: str) -> Handoff | None:
        """Return the handoff of the pool's first replica, or None."""
        try:
            return Handoff.model_validate_json((self.handoff_dir / f"{pool_id}-r0.json").read_bytes())
        except FileNotFoundError:
            return None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds. Raises AssertionError with the log after READY_WITHIN_S."""
        with trio.move_on_after(READY_WITHIN_S):
            while not condition():  # noqa: ASYNC110 -- state of another process
                await trio.sleep(POLL_S)
            return
        raise AssertionError(f"condition not met within {READY_WITHIN_S:g} s:\n{self.log}")

    async def ready(self, pool_id: str) -> Handoff:
        """Wait until the pool is ready and return its handoff."""
        await self.until(lambda: self.state(pool_id) is PoolState.READY)
        handoff = self.handoff(pool_id)
        assert handoff is not None
        return handoff

    async def failed(self, pool_id: str) -> str:
        """Wait until the pool has failed and return its last error."""
        await self.until(lambda: self.state(pool_id) is PoolState.FAILED)
        report = self.report(pool_id)
        assert report is not None
        assert report.last_error is not None
        return report.last_error

    def state(self, pool_id: str) -> PoolState | None:
        report = self.report(pool_id)
        return report.state if report else None

    async def ask(self, path: str) -> tuple[int, str]:
        """Send GET `path` over the local socket and return status and body."""
        stream = await trio.open_unix_socket(str(self.directory / ".runtime/engine-provisioner.sock"))
        async with stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            with trio.fail_after(READY_WITHIN_S):
                while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < _length(answer):
                    answer += await receive_some(stream)
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()


def _length(answer: bytes) -> int:
    head = answer.partition(b"\r\n\r\n")[0].decode().lower()
    return next(int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length:"))


def environment(directory: Path) -> dict[str, str]:
    """Return variables for engines on the CPU, a cache below `directory`, and text logs."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "ENGINE_PROVISIONER_GPU_MASK": "cpu",
        "ENGINE_PROVISIONER_CACHE_DIR": str(directory / "cache"),
        "LLAMA_ORCH_LOG_FORMAT": "pretty",
    }


async def start(directory: Path, **env: str) -> trio.Process:
    """Start the daemon in `directory`. It logs to the file `log` there."""
    with (directory / "log").open("ab") as log:
        return await trio.lowlevel.open_process(
            [sys.executable, "-m", "engine_provisioner"],
            cwd=directory,
            env={**environment(directory), **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


@asynccontextmanager
async def provisioner(directory: Path, pools: str, **env: str) -> AsyncIterator[Provisioner]:
    """Run the daemon with `pools` as its pools file. At exit it must end with status 0 on SIGTERM."""
    (directory / "pools.toml").write_text(pools)
    process = await start(directory, **env)
    running = Provisioner(directory, process)
    try:
        yield running
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_WITHIN_S):
            await process.wait()
        assert process.returncode == 0, running.log
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
