"""What has to be there before an engine is started: GPUs, program, model, and an engine that answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from engine_provisioner import engine_record
from engine_provisioner.acquirer import Acquirer, loads_gguf
from engine_provisioner.engine import Engine, LocalModel
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.gguf.reader import GgufError, header_of, read_header
from engine_provisioner.launch import command, devices, ports, probes
from engine_provisioner.launch.launcher import Launcher
from engine_provisioner.launch.probes import Probes
from engine_provisioner.memory import loads
from engine_provisioner.memory.fit import too_large
from engine_provisioner.memory.loads import Loads
from engine_provisioner.memory.residency import residency_of
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.step_deadline import DISK_STEP_S, StepDeadline
from llama_orch.contracts.pools import Residency
from llama_orch.settings.types import GpuMask
from llama_orch.telemetry.tracing.spans import Attributes, step


@dataclass(frozen=True)
class SharedResources:
    """Resources shared by all managed pools of the daemon."""

    gpu_mask: GpuMask
    cache_ram_mib: int
    acquirer: Acquirer
    launcher: Launcher
    ports: ports.Ports
    loads: Loads
    probes: Probes = field(default_factory=Probes)


@dataclass(frozen=True)
class Prepared:
    """An engine that is ready to be started; no `devices` means the CPU."""

    engine: Engine
    model: LocalModel
    devices: tuple[int, ...]


async def prepare(
    pool: Pool, shared: SharedResources, deadline: StepDeadline, report: Callable[[str], Awaitable[None]]
) -> Prepared:
    """Obtain engine and model. Raises ProvisioningFailure.

    Cheap checks come first: nothing is fetched if a GPU or a local model is missing.
    """
    with step("llama_orch.provision", span_attributes(pool), root=True):
        return await _obtain(pool, shared, deadline, report)


def span_attributes(pool: Pool) -> Attributes:
    """Return what spans say about the pool."""
    mode = pool.provisioning.mode
    return {"llama_orch.pool.id": pool.id, "llama_orch.engine": pool.engine, "llama_orch.mode": mode}


async def _obtain(
    pool: Pool, shared: SharedResources, deadline: StepDeadline, report: Callable[[str], Awaitable[None]]
) -> Prepared:
    gpus = devices.select(pool, shared.gpu_mask)
    deadline.expect(DISK_STEP_S, "looking for GPUs")
    if gpus:
        devices.check_present(gpus, await trio.to_thread.run_sync(devices.present_gpus))
    await shared.acquirer.check_here(pool, deadline, shared.launcher.engine_user)
    provide_image = partial(shared.launcher.provide_image, pool.id, report=report)
    with step("llama_orch.fetch", {"llama_orch.fetch.what": "engine"}):
        program = await shared.acquirer.program(pool, deadline, report, gpus, provide_image)
    with step("llama_orch.fetch", {"llama_orch.fetch.what": "model"}):
        model = await shared.acquirer.model(pool, deadline, report)
    deadline.expect(3 * probes.LIMIT_S, "asking the engine for its version")
    engine, asked = await shared.probes.engine(program)
    if program.record and asked:
        note = partial(engine_record.note_report, program.record, engine.version, engine.options)
        await trio.to_thread.run_sync(note)
    if gpus and program.image is None and "--list-devices" in engine.options:
        env = command.engine_environment(pool, gpus)
        devices.check_visible(engine, gpus, await probes.output(program, "--list-devices", env=env))
    prepared = Prepared(engine, model, gpus)
    if failure := await trio.to_thread.run_sync(too_large_here, pool, prepared):
        raise failure
    return prepared


def too_large_here(pool: Pool, prepared: Prepared) -> ProvisioningFailure | None:
    """Return the failure if the model can never fit on the GPUs of this machine. Blocks."""
    model, gpus = prepared.model, prepared.devices
    projector = model.mmproj.stat().st_size if model.mmproj else 0
    total_bytes = devices.memory_total(gpus) if gpus else None
    return too_large(pool, model, header_of(model.path), gpus, total_bytes, projector)


async def check_header(pool: Pool, prepared: Prepared) -> None:
    """Raise ProvisioningFailure if the engine needs a GGUF file and the header of the model is not that of one."""
    path = prepared.model.path
    if not loads_gguf(pool):
        return
    try:
        await trio.to_thread.run_sync(read_header, path)
    except (GgufError, OSError) as error:
        raise ProvisioningFailure(f"the model {path} has no usable header: {error}", "", Retry.AFTER_FIX) from error


async def describe_load(pool: Pool, shared: SharedResources, prepared: Prepared) -> Residency:
    """Return what loading the pool takes, by its last load if there was one."""
    last = await trio.to_thread.run_sync(shared.loads.last, load_key(pool, prepared))
    header = await trio.to_thread.run_sync(header_of, prepared.model.path)
    return residency_of(pool, prepared.model, prepared.devices, last, header)


def load_key(pool: Pool, prepared: Prepared) -> str:
    """Return the key of the pool's loads."""
    return loads.key_of(pool, prepared.engine, prepared.model, prepared.devices)
