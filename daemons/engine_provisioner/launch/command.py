"""From a pool and an engine to the command that runs it. Pure; the options are those of the engine's kind."""

import os
from pathlib import Path

from engine_provisioner.containers import MODELS as CONTAINER_MODELS
from engine_provisioner.engine import ContainerRun, Engine, EngineCommand, LocalModel
from engine_provisioner.sources.model_name import short_name
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.workloads import engine_options
from llama_orch.engines import KINDS
from llama_orch.engines.kind import LaunchRequest

HOST = "127.0.0.1"
CACHE_RAM_MAX_MIB = 2048
CACHE_RAM_SHARE = 16
"""An engine keeps old prompts in at most this fraction, 1/16, of the machine's memory."""


def engine_command(
    pool: Pool, engine: Engine, model: LocalModel, *, port: int, devices: tuple[int, ...], cache_ram_mib: int
) -> EngineCommand:
    """Return the command that serves `model` for `pool` on `port`; no `devices` means on the CPU.

    Raises LookupError for a kind that engine-provisioner cannot start.
    """
    launch = KINDS[pool.engine].launch
    if launch is None:
        raise LookupError(f"engine {pool.engine} cannot be started")
    image = engine.program.image
    mounted = mounted_directory(model) if image else Path()

    def shown(path: Path) -> str:
        """Return the path by which the engine finds a file of the model."""
        return f"{CONTAINER_MODELS}/{path.absolute().relative_to(mounted)}" if image else str(path)

    request = LaunchRequest(
        options=engine_options(pool),
        known_options=engine.options,
        model_path=shown(model.path),
        model_alias=short_name(model.name),
        host=HOST,
        port=port,
        ctx=pool.ctx,
        slots=pool.slots,
        devices=devices,
        tensor_split=pool.tensor_split,
        cache_ram_mib=cache_ram_mib,
        mmproj_path=shown(model.mmproj) if model.mmproj else None,
        template_path=shown(model.template) if model.template else None,
        model_name=model.name,
    )
    argv = (*engine.program.argv, *launch.arguments(request), *pool.flags)
    if image is None:
        return EngineCommand(argv, engine_environment(pool, devices))
    container = ContainerRun(image.runtime, image.name, image.image_id, str(mounted), devices)
    # the container has these GPUs only, and numbers them from 0
    env = engine_environment(pool, tuple(range(len(devices))))
    return EngineCommand(argv, {**launch.container_env, **env}, container)


def mounted_directory(model: LocalModel) -> Path:
    """Return the directory that a container needs for the files of `model`, also where they are links. Blocks."""
    paths = [path for path in (model.path, model.mmproj, model.template) if path]
    return Path(
        os.path.commonpath([parent for path in paths for parent in (path.absolute().parent, path.resolve().parent)])
    )


def engine_environment(pool: Pool, devices: tuple[int, ...]) -> dict[str, str]:
    """Return the engine's variables: the pool's, and which GPUs it sees.

    CUDA numbers GPUs by speed unless told otherwise, and NVML by bus: PCI_BUS_ID makes `devices` mean the same to both.
    """
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, devices)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {**pool.env, **visible}


def cache_ram_mib(memory_bytes: int) -> int:
    """Return how many MiB of old prompts an engine may keep; llama-server's own default is 8192 for each.

    Depends on the machine only. If it depended on the number of pools, adding a pool would restart all engines.
    """
    return min(memory_bytes // (1 << 20) // CACHE_RAM_SHARE, CACHE_RAM_MAX_MIB)


def machine_cache_ram_mib() -> int:
    """Return `cache_ram_mib` for this machine."""
    return cache_ram_mib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def announced_flags(command: EngineCommand, engine: Engine) -> list[str]:
    """Return the arguments for the handoff file, bounded by what its readers accept."""
    arguments = command.argv[len(engine.program.argv) :]
    return [argument for argument in arguments if 0 < len(argument) <= 256][:256]
