"""The plan of one pool: what engine-provisioner would do for it, and what forbids it. Writes nothing."""

import json
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
from pydantic import ValidationError

from engine_provisioner import containers, engine_record
from engine_provisioner.acquirer import loads_gguf, startable
from engine_provisioner.engine import Engine, EngineCommand, LocalModel, Program
from engine_provisioner.engine_record import EngineRecord
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch import command, devices, ports
from engine_provisioner.launch.ports import Ports
from engine_provisioner.modes.planning import PlanSite, SizeOf, Step, StepState, blocked
from engine_provisioner.pulls import request_of
from engine_provisioner.settings import ProvisionerSettings
from engine_provisioner.sources import file
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.sources.registry import source_of
from engine_provisioner.sources.source import source_context
from engine_provisioner.spec.pool_spec import Pool
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from llama_orch.engines import KINDS
from llama_orch.redaction import shown_arguments, shown_environment


class EveryOption(frozenset[str]):
    """The options of an engine that is not here yet: those of the newest release."""

    def __contains__(self, _option: object) -> bool:
        return True


@dataclass(frozen=True)
class Problem:
    """Why the pool could not start. `configured`: the pools file or a variable has to change, not the machine."""

    message: str
    hint: str
    configured: bool


@dataclass
class PoolPlan:
    """What would be done for a pool. `command` is the expected one until the engine is there."""

    pool_id: str
    engine: str
    mode: str
    state: str | None = None
    gates: tuple[str, ...] = ()
    steps: list[Step] = field(default_factory=list)
    record: EngineRecord | None = None
    gpus: list[str] = field(default_factory=list)
    port: int | None = None
    command: list[str] = field(default_factory=list)
    command_is_expected: bool = False
    env: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """Add a step, and its failure as a problem."""
        self.steps.append(step)
        if step.failure:
            self.refuse(step.failure)

    def refuse(self, failure: ProvisioningFailure) -> None:
        """Add a problem."""
        self.problems.append(Problem(failure.message, failure.hint, failure.retry is Retry.NEVER))


class Planner:
    """Makes the plans of pools that share ports and a cache directory."""

    def __init__(self, settings: ProvisionerSettings, pools: list[Pool], size_of: SizeOf) -> None:
        self._settings = settings
        self._cache_dir = settings.cache_dir.absolute()
        self._context = source_context(settings, self._cache_dir, os.environ)
        self._ports = Ports(pools, {})
        self._size_of = size_of

    async def plan(self, pool: Pool) -> PoolPlan:
        """Return the plan of `pool`."""
        report = await trio.to_thread.run_sync(_report_of, self._settings.handoff_dir, pool.id)
        made = PoolPlan(pool.id, pool.engine, pool.provisioning.mode, report.state.value if report else None)
        gpus = await self._gpus(pool, made)
        launch = KINDS[pool.engine].launch
        site = PlanSite(self._cache_dir, gpus, self._size_of, launch.container_entry if launch else ())
        engine = await pool.provisioning.plan(site)
        made.gates = engine.gates
        for step in engine.steps:
            made.add(step)
        if not pool.provisioning.starts_engine:
            return made
        try:
            startable(pool)
        except ProvisioningFailure as failure:
            made.refuse(failure)
            return made
        model = await self._model(pool, made)
        made.port = await self._port(pool, made, report)
        if engine.record:
            made.record = await trio.to_thread.run_sync(engine_record.read, engine.record)
        known = frozenset(made.record.options) if made.record and made.record.options else EveryOption()
        made.command_is_expected = isinstance(known, EveryOption)
        argv = engine.argv if engine.argv is not None else ("llama-server",)
        program = Program(argv, Path(argv[0] if argv else ""), image=engine.image)
        expected = command.engine_command(
            pool,
            Engine(program, "unknown", known),
            model,
            port=made.port or 0,
            devices=gpus,
            cache_ram_mib=await trio.to_thread.run_sync(command.machine_cache_ram_mib),
        )
        made.command = shown_arguments(_whole(pool.id, expected))
        made.env = shown_environment(expected.env)
        return made

    async def _gpus(self, pool: Pool, made: PoolPlan) -> tuple[int, ...]:
        if not pool.provisioning.starts_engine:
            return ()
        try:
            gpus = devices.select(pool, self._settings.gpu_mask)
            if not gpus:
                made.gpus = ["none: the engine runs on the CPU"]
                return ()
            present = await trio.to_thread.run_sync(devices.present_gpus)
            made.gpus = [f"{index} ({present[index]})" if index in present else f"{index} (absent)" for index in gpus]
            devices.check_present(gpus, present)
        except ProvisioningFailure as failure:
            made.refuse(failure)
            return self._settings.gpu_mask.indices if pool.devices is None else tuple(pool.devices)
        return gpus

    async def _model(self, pool: Pool, made: PoolPlan) -> LocalModel:
        assert pool.model is not None, "policies.contradictions requires it"
        ref, shown = pool.model.ref, model_name(pool.model.ref)
        path = Path("model.gguf")
        try:
            source, request = source_of(ref), request_of(pool)
            stored = await trio.to_thread.run_sync(source.stored, request, self._context)
            if source.resolve is None:
                await trio.to_thread.run_sync(file.check_readable, file.local_path(ref), None)
            if stored:
                path = stored.parts[0].path
                check = file.check_gguf if loads_gguf(pool) else file.check_any
                size = await trio.to_thread.run_sync(check, path)
                made.add(Step("model", shown, StepState.PRESENT, size_bytes=size))
            elif ref.startswith(("https://", "http://")):
                made.add(Step("model", shown, StepState.DOWNLOAD, size_bytes=await self._size_of(ref)))
            else:
                made.add(Step("model", shown, StepState.DOWNLOAD))
        except ProvisioningFailure as failure:
            made.add(blocked("model", shown, failure))
        return LocalModel(shown, path, 0)

    async def _port(self, pool: Pool, made: PoolPlan, report: ProvisioningReport | None) -> int | None:
        """Return the port of the pool's running engine, else the one that it would get."""
        running = report and report.state is PoolState.READY and report.handoff and report.handoff.url
        held = int(running.rpartition(":")[2]) if running else None
        if held is not None and not pool.ports:
            return held
        claim = partial(self._ports.claim, pool.id, lambda port: port == held or ports.is_free(port))
        try:
            return await trio.to_thread.run_sync(claim)
        except ports.PortInUse as error:
            made.refuse(ports.in_use_failure(error.port, await trio.to_thread.run_sync(ports.holder_of, error.port)))
            return error.port
        except ProvisioningFailure as failure:
            made.refuse(failure)
            return None


def _whole(pool_id: str, expected: EngineCommand) -> list[str]:
    """Return the command with that of the container's runtime before it."""
    if expected.container is None:
        return list(expected.argv)
    container = containers.check_container(json.loads(expected.document()))
    return containers.run_command(pool_id, container, None, "env", unit=True)


def _report_of(handoff_dir: Path, pool_id: str) -> ProvisioningReport | None:
    """Return the daemon's last report of the pool, if there is one that this user can read. Blocks."""
    try:
        return ProvisioningReport.model_validate_json((handoff_dir / f"status/{pool_id}.json").read_bytes())
    except (OSError, ValidationError):
        return None
