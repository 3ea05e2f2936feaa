"""Engines as units `llama-engine@POOL.service`: they outlive this daemon and are adopted by the next one.

Owns the launch directory: `POOL.json` there is what `exec_engine` executes for the unit.
"""

import json
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from engine_provisioner.engine import Command
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch import unit_manager
from engine_provisioner.launch.adoption import Verdict, verdict
from engine_provisioner.launch.bus import BusError
from engine_provisioner.launch.engine_output import KEPT_LINES, clean, epitaph
from engine_provisioner.launch.launcher import Answers, RunningEngine, process_end
from engine_provisioner.launch.unit_manager import UnitState
from engine_provisioner.spec.reachability import Reader, user
from llama_orch.files import durable

LAUNCH_DIR = Path("/run/llama-orch/launch")
PREFIX, SUFFIX = "llama-engine@", ".service"
USER = "llama-engine"
JOURNAL_S = 2.0
JOURNAL_LOOK_S = 0.1
CLD_EXITED = 1
T = TypeVar("T")


def in_charge(environ: Mapping[str, str], pid: int, launch_dir: Path = LAUNCH_DIR) -> bool:
    """Whether systemd runs this process as a service, so that it can run engines as units too."""
    return environ.get("SYSTEMD_EXEC_PID") == str(pid) and launch_dir.is_dir()


def unit_of(pool_id: str) -> str:
    """The pool's unit."""
    return f"{PREFIX}{pool_id}{SUFFIX}"


class SystemdLauncher:
    """Runs engines through the system's manager."""

    def __init__(self, launch_dir: Path = LAUNCH_DIR) -> None:
        self._directory = launch_dir

    def engine_user(self) -> Reader | None:
        """The user in llama-engine@.service."""
        return user(USER)

    @asynccontextmanager
    async def run(self, pool_id: str, command: Command, answers: Answers) -> AsyncIterator[RunningEngine]:
        """The pool's unit, adopted where it runs as wanted. Leaving the block leaves it running."""
        unit, wanted = unit_of(pool_id), command.document()
        state = await _asked(unit, unit_manager.settled)
        launched = await trio.to_thread.run_sync(_content, self._file(pool_id))
        answering = state.active == "active" and launched == wanted and await answers(command)
        decided = verdict(state.active, launched, wanted, answering)
        if decided is not Verdict.ADOPT:
            if decided is Verdict.REPLACE:
                await _asked(unit, unit_manager.stop)
            await self._write(pool_id, wanted)
            state = await _asked(unit, unit_manager.start)
        engine = UnitEngine(unit, state, adopted=decided is Verdict.ADOPT)
        if state.active != "active":
            raise ProvisioningFailure(await engine.last_words(), f"See journalctl -u {unit}.")
        yield engine

    async def remembered(self) -> dict[str, Command]:
        """What the launch files hold."""
        return await trio.to_thread.run_sync(_commands, self._directory)

    async def held_port(self, pool_id: str) -> int | None:
        """The port in the launch file of a unit that runs."""
        state = await _asked(unit_of(pool_id), unit_manager.settled)
        known = await trio.to_thread.run_sync(_command, self._file(pool_id))
        return known.port if known and state.active == "active" else None

    async def leftovers(self) -> set[str]:
        """The pools that have a launch file or a unit that runs."""
        units = await _asked("the engines' units", lambda _what: unit_manager.running(f"{PREFIX}*{SUFFIX}"))
        return {unit.removeprefix(PREFIX).removesuffix(SUFFIX) for unit in units} | set(await self.remembered())

    async def retire(self, pool_id: str) -> None:
        """Stop the pool's unit and remove its launch file. Raises ProvisioningFailure."""
        await _asked(unit_of(pool_id), unit_manager.stop)
        await trio.Path(self._file(pool_id)).unlink(missing_ok=True)

    def _file(self, pool_id: str) -> Path:
        return self._directory / f"{pool_id}.json"

    async def _write(self, pool_id: str, content: bytes) -> None:
        path = self._file(pool_id)
        try:
            await trio.to_thread.run_sync(durable.replace, path, content)
        except OSError as error:
            what = f"the launch file {path} cannot be written: {error.strerror or error}"
            raise ProvisioningFailure(what, "systemd-tmpfiles --create makes its directory.") from error


class UnitEngine:
    """An engine that systemd runs."""

    def __init__(self, unit: str, state: UnitState, *, adopted: bool) -> None:
        self.unit = unit
        self.pid = state.main_pid
        self.adopted = adopted
        self._invocation = state.invocation

    async def ended(self) -> None:
        """Return when the unit's main process has ended."""
        await process_end(self.pid)

    async def last_words(self) -> str:
        """How it ended, with the last lines that it wrote into the journal."""
        state = await _asked(self.unit, unit_manager.settled)
        return epitaph(manner(state), await _journal(self._invocation))

    async def stop(self) -> None:
        """Stop the unit; its KillMode and TimeoutStopSec see to it that it ends."""
        await _asked(self.unit, unit_manager.stop)


def manner(state: UnitState) -> str:
    """How the unit's main process ended."""
    if state.active == "active":
        return "still runs"
    if state.exit_code == CLD_EXITED:
        return f"ended with status {state.exit_status}"
    if state.exit_code:
        cause = ", out of memory" if state.result == "oom-kill" else ""
        return f"was killed by {signal.Signals(state.exit_status).name}{cause}"
    return "was stopped" if state.result == "success" else f"did not start ({state.result})"


async def _asked(what: str, ask: Callable[[str], Awaitable[T]]) -> T:
    """Ask systemd. Raises ProvisioningFailure."""
    try:
        return await ask(what)
    except BusError as error:
        if error.denied:
            hint = "The polkit rule of the package allows it for llama-engine@*.service: see that polkit runs."
            raise ProvisioningFailure(f"systemd refuses to handle {what}: {error}", hint, Retry.MENDING) from error
        raise ProvisioningFailure(f"systemd cannot handle {what}: {error}") from error


async def _journal(invocation: str) -> list[str]:
    """The last lines of one run of a unit. The journal may be a little late: ask until it has said something."""
    argv = ["journalctl", "--no-pager", "-q", "-o", "cat", "-n", str(KEPT_LINES)]
    argv.append(f"_SYSTEMD_INVOCATION_ID={invocation}")
    lines: list[str] = []
    with trio.move_on_after(JOURNAL_S):
        while True:
            done = await trio.run_process(argv, capture_stdout=True, stderr=subprocess.DEVNULL, check=False)
            before, lines = lines, [clean(line) for line in done.stdout.splitlines()]
            if lines and lines == before:
                break
            await trio.sleep(JOURNAL_LOOK_S)
    return lines


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _command(path: Path) -> Command | None:
    try:
        content = json.loads(path.read_bytes())
        return Command(tuple(map(str, content["argv"])), dict(content["env"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _commands(directory: Path) -> dict[str, Command]:
    found = {path.stem: _command(path) for path in directory.glob("*.json")}
    return {pool_id: known for pool_id, known in found.items() if known}
