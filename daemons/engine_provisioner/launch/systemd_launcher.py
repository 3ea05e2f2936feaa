"""Engines as units `llama-engine@POOL.service`, in containers `llama-engine-container@POOL.service`.

They keep running while the daemon restarts, which then adopts them. Owns the launch directory: `exec_engine` and
`exec_container` execute the command in `POOL.json` there, and `exec_container` pulls the image in `POOL.image`.
"""

import json
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from engine_provisioner.engine import ContainerRun, EngineCommand, Image, ImageOrder
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch import unit_manager
from engine_provisioner.launch.adoption import RUNNING, UnitAction, choose_action
from engine_provisioner.launch.engine_output import (
    EXIT_HINTS,
    LINES_KEPT,
    OUT_OF_MEMORY,
    clean_line,
    exit_cause,
    exit_message,
)
from engine_provisioner.launch.images import image_of, pull_failure
from engine_provisioner.launch.launcher import LivenessCheck, Report, RunningEngine, wait_for_exit
from engine_provisioner.launch.unit_manager import UnitState
from llama_orch.files import durable
from llama_orch.files.reachability import UnixUser, find_user
from llama_orch.service.bus import BusError

LAUNCH_DIR = Path("/run/llama-orch/launch")
PREFIX, CONTAINER_PREFIX, IMAGE_PREFIX, SUFFIX = (
    "llama-engine@",
    "llama-engine-container@",
    "llama-engine-image@",
    ".service",
)
IMAGE_FACTS = Path("/run/llama-orch/images")
PULL_POLL_S = 2.0
USER = "llama-engine"
CGROUPS = Path("/sys/fs/cgroup")
JOURNAL_S = 2.0
JOURNAL_POLL_S = 0.1
CLD_EXITED = 1
T = TypeVar("T")


def is_available(environ: Mapping[str, str], pid: int, launch_dir: Path = LAUNCH_DIR) -> bool:
    """Whether systemd runs this process as a service and the launch directory exists."""
    return environ.get("SYSTEMD_EXEC_PID") == str(pid) and launch_dir.is_dir()


def unit_of(pool_id: str, *, container: bool = False) -> str:
    return f"{CONTAINER_PREFIX if container else PREFIX}{pool_id}{SUFFIX}"


def both_units(pool_id: str) -> tuple[str, str]:
    """Return the units that may run a pool's engine, of which one does."""
    return unit_of(pool_id), unit_of(pool_id, container=True)


class SystemdLauncher:
    """Runs engines as units of the system manager."""

    def __init__(self, launch_dir: Path = LAUNCH_DIR, facts_dir: Path = IMAGE_FACTS) -> None:
        self._directory = launch_dir
        self._facts = facts_dir

    def engine_user(self) -> UnixUser | None:
        """Return the user set in llama-engine@.service. Blocks."""
        return find_user(USER)

    @asynccontextmanager
    async def run(self, pool_id: str, command: EngineCommand, is_alive: LivenessCheck) -> AsyncIterator[RunningEngine]:
        """Start the pool's unit, or adopt it if it runs the same command. It keeps running when the block ends."""
        unit, required = unit_of(pool_id, container=command.container is not None), command.document()
        for other in set(both_units(pool_id)) - {unit}:
            if (await _request(other, unit_manager.settled)).active in RUNNING:
                await _request(other, unit_manager.stop)
        state = await _request(unit, unit_manager.settled)
        launched = await trio.to_thread.run_sync(_read, self._file(pool_id))
        answers = state.active == "active" and launched == required and await is_alive(command)
        action = choose_action(state.active, launched, required, answers)
        if action is not UnitAction.ADOPT:
            if action is UnitAction.REPLACE:
                await _request(unit, unit_manager.stop)
            await self._write(pool_id, required)
            state = await _request(unit, unit_manager.start)
        engine = UnitEngine(unit, state, adopted=action is UnitAction.ADOPT)
        if state.active != "active":
            message = await engine.exit_message()
            hint = EXIT_HINTS.get(exit_cause(message), f"See journalctl -u {unit}.")
            raise ProvisioningFailure(message, hint, Retry.RESTART)
        yield engine

    async def known_commands(self) -> dict[str, EngineCommand]:
        """Return the commands in the launch files."""
        return await trio.to_thread.run_sync(_read_commands, self._directory)

    async def held_port(self, pool_id: str) -> int | None:
        """Return the port in the launch file if the unit is running."""
        states = [await _request(unit, unit_manager.settled) for unit in both_units(pool_id)]
        command = await trio.to_thread.run_sync(_read_command, self._file(pool_id))
        return command.port if command and any(state.active == "active" for state in states) else None

    async def known_pools(self) -> set[str]:
        """Return the pools that have a launch file or a running unit."""
        found = set(await self.known_commands())
        for prefix in (PREFIX, CONTAINER_PREFIX):
            units = await _request(f"{prefix}*{SUFFIX}", unit_manager.running)
            found |= {unit.removeprefix(prefix).removesuffix(SUFFIX) for unit in units}
        return found

    async def remove(self, pool_id: str) -> None:
        """Stop the pool's unit and remove its launch file. Raises ProvisioningFailure."""
        for unit in both_units(pool_id):
            await _request(unit, unit_manager.stop)
        await trio.Path(self._file(pool_id)).unlink(missing_ok=True)
        await trio.Path(self._directory / f"{pool_id}.image").unlink(missing_ok=True)

    def _file(self, pool_id: str) -> Path:
        return self._directory / f"{pool_id}.json"

    async def provide_image(self, pool_id: str, order: ImageOrder, report: Report) -> Image:
        """Have the image pulled by a unit, since the store of images is root's. Raises ProvisioningFailure."""
        unit = f"{IMAGE_PREFIX}{pool_id}{SUFFIX}"
        wanted = EngineCommand(order.entry, {}, ContainerRun(order.runtime, order.image, "", None, ()))
        await self._write_file(self._directory / f"{pool_id}.image", wanted.document())
        await _request(unit, unit_manager.begin)
        while not (state := await _request(unit, unit_manager.state)).settled:
            lines = await _journal_lines(unit, state.invocation)
            await report(f"pulling the image {order.image}" + (f": {lines[-1]}" if lines else ""))
            await trio.sleep(PULL_POLL_S)
        if state.active == "failed":
            raise pull_failure(order.image, exit_manner(state), await _journal_lines(unit, state.invocation))
        return await trio.to_thread.run_sync(_read_facts, self._facts / f"{pool_id}.json", order)

    async def _write(self, pool_id: str, content: bytes) -> None:
        await self._write_file(self._file(pool_id), content)

    async def _write_file(self, path: Path, content: bytes) -> None:
        try:
            await trio.to_thread.run_sync(durable.replace, path, content)
        except OSError as error:
            message = f"cannot write the launch file {path}: {error.strerror or error}"
            raise ProvisioningFailure(message, "systemd-tmpfiles --create creates its directory.") from error


class UnitEngine:
    """An engine that runs as a unit."""

    def __init__(self, unit: str, state: UnitState, *, adopted: bool) -> None:
        self.unit = unit
        self.pid = state.main_pid
        self.adopted = adopted
        self.cgroup = CGROUPS / state.control_group.lstrip("/") if state.control_group else None
        self._invocation = state.invocation

    async def wait(self) -> None:
        """Return when the unit's main process has ended."""
        await wait_for_exit(self.pid)

    async def exit_message(self) -> str:
        """Describe how it ended, with its last lines in the journal."""
        state = await _request(self.unit, unit_manager.settled)
        return exit_message(exit_manner(state), await _journal_lines(self.unit, self._invocation))

    async def stop(self) -> None:
        """Stop the unit. Its KillMode and TimeoutStopSec guarantee that it ends."""
        await _request(self.unit, unit_manager.stop)


def exit_manner(state: UnitState) -> str:
    """Describe how the unit's main process ended."""
    if state.active == "active":
        return "is still running"
    if state.exit_code == CLD_EXITED:
        return f"ended with status {state.exit_status}"
    if state.exit_code:
        cause = OUT_OF_MEMORY if state.result == "oom-kill" else ""
        return f"was killed by {signal.Signals(state.exit_status).name}{cause}"
    return "was stopped" if state.result == "success" else f"did not start ({state.result})"


async def _request(target: str, call: Callable[[str], Awaitable[T]]) -> T:
    """Make `call` with `target`. Raises ProvisioningFailure if systemd refuses or fails."""
    try:
        return await call(target)
    except BusError as error:
        if error.denied:
            hint = "The package's polkit rule allows it for llama-engine@*.service: check that polkit is running."
            raise ProvisioningFailure(
                f"systemd refused a request for {target}: {error}", hint, Retry.AFTER_FIX
            ) from error
        raise ProvisioningFailure(f"systemd cannot handle a request for {target}: {error}") from error


async def _journal_lines(unit: str, invocation: str) -> list[str]:
    """Return the last lines of one run of a unit, without podman's own events.

    The journal may lag, so read it until the result is stable.
    """
    argv = ["journalctl", "--no-pager", "-q", "-o", "cat", "-n", str(LINES_KEPT)]
    argv += [f"_SYSTEMD_INVOCATION_ID={invocation}", f"SYSLOG_IDENTIFIER={unit.removesuffix(SUFFIX)}"]
    lines: list[str] = []
    with trio.move_on_after(JOURNAL_S):
        while True:
            done = await trio.run_process(argv, capture_stdout=True, stderr=subprocess.DEVNULL, check=False)
            before, lines = lines, [clean_line(line) for line in done.stdout.splitlines()]
            if lines and lines == before:
                break
            await trio.sleep(JOURNAL_POLL_S)
    return lines


def _read_facts(path: Path, order: ImageOrder) -> Image:
    try:
        return image_of(order, json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise ProvisioningFailure(f"cannot read the facts about the image {order.image}: {error}") from error


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _read_command(path: Path) -> EngineCommand | None:
    try:
        content = json.loads(path.read_bytes())
        wanted = content.get("container")
        container = ContainerRun(**{**wanted, "devices": tuple(wanted["devices"])}) if wanted else None
        return EngineCommand(tuple(map(str, content["argv"])), dict(content["env"]), container)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_commands(directory: Path) -> dict[str, EngineCommand]:
    found = {path.stem: _read_command(path) for path in directory.glob("*.json")}
    return {pool_id: command for pool_id, command in found.items() if command}
