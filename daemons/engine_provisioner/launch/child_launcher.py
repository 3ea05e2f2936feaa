"""Engines as child processes, used without systemd. They end with the daemon.

Owns the processes and the pipes that carry their output, which is logged line by line.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from engine_provisioner import containers
from engine_provisioner.engine import EngineCommand, Image, ImageOrder, base_environment
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch.engine_output import LINE_LIMIT, LINES_KEPT, clean_line, exit_message, severity_of
from engine_provisioner.launch.images import image_of, pull_failure
from engine_provisioner.launch.launcher import LivenessCheck, Report, RunningEngine, wait_for_exit

log = logging.getLogger("engine_provisioner.engine")

GUARD = Path(__file__).with_name("die_with_parent.py")
GRACE_S = 3.0
"""The time for each signal to take effect. A llama-server that is generating usually hangs on its first SIGTERM."""
OUTPUT_DRAIN_S = 2.0
REMOVE_S = 30.0
RUNTIME_VARIABLES = ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "CONTAINERS_CONF", "DOCKER_HOST")
"""Variables by which the runtimes find their store and configuration."""


class ChildLauncher:
    """Runs engines as child processes. Tasks in `readers` read their output, so it must outlive every engine."""

    def __init__(self, readers: trio.Nursery) -> None:
        self._readers = readers

    def engine_user(self) -> None:
        """Engines run as this daemon's user."""

    async def provide_image(self, _pool_id: str, order: ImageOrder, report: Report) -> Image:
        """Pull the image with this daemon's own rights, unless it is here. Raises ProvisioningFailure."""
        look = partial(containers.facts_of, order.runtime, order.image, order.entry, None, {})
        facts = await trio.to_thread.run_sync(look)
        if facts is None:
            await report(f"pulling the image {order.image}")
            pull = [order.runtime, "pull", order.image]
            done = await trio.run_process(pull, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
            if done.returncode != 0:
                lines = [clean_line(line) for line in done.stdout.splitlines()]
                raise pull_failure(order.image, f"ended with status {done.returncode}", lines)
            facts = await trio.to_thread.run_sync(look)
        return image_of(order, facts)

    @asynccontextmanager
    async def run(self, pool_id: str, command: EngineCommand, _is_alive: LivenessCheck) -> AsyncIterator[RunningEngine]:
        """Start the engine; stop it when the block ends. Raises ProvisioningFailure."""
        with tempfile.TemporaryDirectory(prefix="llama-engine-") as scratch:
            started = _on_this_machine(pool_id, command, f"{scratch}/env")
            async with self._running(pool_id, started, command) as engine:
                yield engine

    @asynccontextmanager
    async def _running(
        self, pool_id: str, started: EngineCommand, command: EngineCommand
    ) -> AsyncIterator[RunningEngine]:
        engine = ChildEngine(pool_id, started)
        self._readers.start_soon(engine.read_output)
        try:
            yield engine
        finally:
            with trio.CancelScope(shield=True):
                await engine.stop()
                if command.container:
                    await _remove_container(pool_id, command.container.runtime)

    async def known_commands(self) -> dict[str, EngineCommand]:
        """None: children do not outlive the daemon."""
        return {}

    async def known_pools(self) -> set[str]:
        """None: children do not outlive the daemon."""
        return set()

    async def held_port(self, pool_id: str) -> int | None:
        """None: a pool's engine has ended before the next one starts."""
        return None

    async def remove(self, pool_id: str) -> None:
        """Do nothing: there is no such engine."""


class ChildEngine:
    """An engine process that leads its own session."""

    unit = cgroup = None
    adopted = False

    def __init__(self, pool_id: str, command: EngineCommand) -> None:
        """Start the process. Raises ProvisioningFailure."""
        self._pool_id = pool_id
        self._fields = {"pool_id": pool_id}
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._output_ended = trio.Event()
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = _start(command, write_end)
        except OSError as error:
            os.close(read_end)
            message = f"cannot start the engine: {error.strerror or error}"
            raise ProvisioningFailure(message, retry=Retry.BACKOFF) from error
        finally:
            os.close(write_end)
        self._output = trio.lowlevel.FdStream(read_end)

    @property
    def pid(self) -> int:
        """The engine's process; the guard script executes the engine in its own process."""
        return self._process.pid

    async def read_output(self) -> None:
        """Log the engine's output line by line until it ends."""
        rest = b""
        try:
            async with self._output:
                async for chunk in self._output:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._log_line(line)
                    if len(rest) > LINE_LIMIT * 4:
                        self._log_line(rest)
                        rest = b""
            self._log_line(rest)
        finally:
            self._output_ended.set()

    def _log_line(self, raw: bytes) -> None:
        line = clean_line(raw)
        if line:
            self._lines.append(line)
            log.log(severity_of(line), "%s: %s", self._pool_id, line, extra={"fields": self._fields})

    async def wait(self) -> None:
        """Return when the process has ended, and reap it."""
        if self._process.poll() is None:
            await wait_for_exit(self.pid)
            self._process.wait()

    async def exit_message(self) -> str:
        """Describe how it ended, with its last lines of output."""
        with trio.move_on_after(OUTPUT_DRAIN_S):
            await self._output_ended.wait()
        return exit_message(_manner(self._process.returncode), self._lines)

    async def stop(self) -> None:
        """Send SIGTERM twice, then SIGKILL, GRACE_S seconds apart, until it has ended."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            with trio.move_on_after(GRACE_S):
                await self.wait()
        with trio.move_on_after(OUTPUT_DRAIN_S):
            await self._output_ended.wait()


def _on_this_machine(pool_id: str, command: EngineCommand, env_file: str) -> EngineCommand:
    """Return the command of podman's client for an engine in a container; others as they are.

    If the daemon is killed, the client dies with it and the container does not; the pool's next start replaces it.
    """
    wanted = command.container
    if wanted is None:
        return command
    containers.write_env_file(env_file, command.env)
    about = containers.check_container(json.loads(command.document()))
    argv = containers.run_command(pool_id, about, None, env_file, unit=False)
    return EngineCommand(tuple(argv), {name: os.environ[name] for name in RUNTIME_VARIABLES if name in os.environ})


async def _remove_container(pool_id: str, runtime: str) -> None:
    with trio.move_on_after(REMOVE_S):
        remove = [runtime, "rm", "--force", containers.name_of(pool_id)]
        await trio.run_process(remove, capture_stdout=True, capture_stderr=True, check=False)


def _start(command: EngineCommand, output: int) -> subprocess.Popen[bytes]:
    """Start the guard from the calling thread, not a worker: the guard dies when the *thread* that forked it ends."""
    argv = [sys.executable, "-IS", str(GUARD), str(os.getpid()), *command.argv]
    return subprocess.Popen(  # noqa: S603 -- the configured engine, no shell
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**base_environment(), **command.env},
        start_new_session=True,
    )


def _manner(status: int | None) -> str:
    if status is None:
        return "is still running"
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
