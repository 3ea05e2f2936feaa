"""Engines as child processes, where no systemd starts them: they end with the daemon.

Owns the processes and the pipes of their output, which goes line by line into this daemon's own log.
"""

import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from engine_provisioner.engine import Command, base_environment
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch.engine_output import KEPT_LINES, LINE_LIMIT, clean, epitaph, severity_of
from engine_provisioner.launch.launcher import Answers, RunningEngine, process_end

log = logging.getLogger("engine_provisioner.engine")

GUARD = Path(__file__).with_name("die_with_parent.py")
GRACE_S = 3.0
"""How long one SIGTERM may take. A llama-server that is generating usually hangs in its first one."""
OUTPUT_DRAIN_S = 2.0


class ChildLauncher:
    """Runs engines as children; their output is read by tasks of `readers`, which must outlive every engine."""

    def __init__(self, readers: trio.Nursery) -> None:
        self._readers = readers

    def engine_user(self) -> None:
        """This daemon's own."""

    @asynccontextmanager
    async def run(self, pool_id: str, command: Command, _answers: Answers) -> AsyncIterator[RunningEngine]:
        """The engine as a child; leaving the block ends it."""
        engine = ChildEngine(pool_id, command)
        self._readers.start_soon(engine.read_output)
        try:
            yield engine
        finally:
            with trio.CancelScope(shield=True):
                await engine.stop()

    async def remembered(self) -> dict[str, Command]:
        """Nothing: children do not outlive the daemon."""
        return {}

    async def leftovers(self) -> set[str]:
        """Nothing."""
        return set()

    async def held_port(self, pool_id: str) -> int | None:
        """None: an engine has ended before the next one is started."""
        return None

    async def retire(self, pool_id: str) -> None:
        """Nothing to do."""


class ChildEngine:
    """One engine process, the leader of its own session."""

    unit = None
    adopted = False

    def __init__(self, pool_id: str, command: Command) -> None:
        """Start it. Raises ProvisioningFailure."""
        self._pool_id = pool_id
        self._fields = {"pool_id": pool_id}
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._all_read = trio.Event()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = _start(command, writing)
        except OSError as error:
            os.close(reading)
            what = f"the engine cannot be started: {error.strerror or error}"
            raise ProvisioningFailure(what, retry=Retry.BACKOFF) from error
        finally:
            os.close(writing)
        self._output = trio.lowlevel.FdStream(reading)

    @property
    def pid(self) -> int:
        """The engine's process: the guard has become it."""
        return self._process.pid

    async def read_output(self) -> None:
        """Log the engine's output line by line until its end."""
        rest = b""
        try:
            async with self._output:
                async for chunk in self._output:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._note(line)
                    if len(rest) > LINE_LIMIT * 4:
                        self._note(rest)
                        rest = b""
            self._note(rest)
        finally:
            self._all_read.set()

    def _note(self, raw: bytes) -> None:
        line = clean(raw)
        if line:
            self._lines.append(line)
            log.log(severity_of(line), "%s: %s", self._pool_id, line, extra={"fields": self._fields})

    async def ended(self) -> None:
        """Return when the process has ended; reaps it."""
        if self._process.poll() is None:
            await process_end(self.pid)
            self._process.wait()

    async def last_words(self) -> str:
        """How it ended, with its own last lines."""
        with trio.move_on_after(OUTPUT_DRAIN_S):
            await self._all_read.wait()
        return epitaph(_manner(self._process.returncode), self._lines)

    async def stop(self) -> None:
        """SIGTERM, SIGTERM again, SIGKILL, each for GRACE_S seconds."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            with trio.move_on_after(GRACE_S):
                await self.ended()
        with trio.move_on_after(OUTPUT_DRAIN_S):
            await self._all_read.wait()


def _start(command: Command, output: int) -> subprocess.Popen[bytes]:
    """Start it from this thread: the guard's signal comes when the *thread* that forked ends."""
    argv = [sys.executable, "-IS", str(GUARD), str(os.getpid()), *command.argv]
    return subprocess.Popen(  # noqa: S603 -- the operator's engine, no shell
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**base_environment(), **command.env},
        start_new_session=True,
    )


def _manner(status: int | None) -> str:
    if status is None:
        return "still runs"
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
