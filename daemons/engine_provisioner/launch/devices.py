"""Which GPUs a pool runs on. A GPU that is configured and absent is a refusal, never a quiet fall back to the CPU."""

from collections.abc import Mapping

from engine_provisioner.engine import Engine
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch.probes import devices_in
from engine_provisioner.spec.pool_spec import Pool
from llama_orch.settings.types import GpuMask

MASK = "ENGINE_PROVISIONER_GPU_MASK"
ON_CPU = f"To run engines on the CPU, say so: {MASK}=cpu."


def wanted(pool: Pool, mask: GpuMask) -> tuple[int, ...]:
    """The indices that `pool` asks for within `mask`; none means the CPU.

    Raises ProvisioningFailure (Retry.NEVER) where pool and mask contradict each other.
    """
    if pool.devices is None:
        return mask.indices
    if mask.cpu:
        what = f"the pool asks for GPUs {_listed(pool.devices)}, but {MASK}=cpu puts engines on the CPU"
        raise ProvisioningFailure(what, "Take devices out of the pool, or name the GPUs in the mask.", Retry.NEVER)
    outside = [index for index in pool.devices if index not in mask.indices]
    if outside:
        what = f"the pool asks for GPUs {_listed(outside)}, which are not in {MASK}={mask}"
        raise ProvisioningFailure(what, "Add them to the mask, or change devices.", Retry.NEVER)
    return tuple(pool.devices)


def check_present(wanted_indices: tuple[int, ...], present: Mapping[int, str]) -> None:
    """Raise ProvisioningFailure where a wanted GPU is not among those `present` (index: name)."""
    absent = [index for index in wanted_indices if index not in present]
    if absent:
        seen = ", ".join(f"{index} ({name})" for index, name in sorted(present.items())) or "none"
        what = f"GPU {_listed(absent)} is configured and not in this machine; there: {seen}"
        raise ProvisioningFailure(what, f"Mend devices or {MASK}. {ON_CPU}", Retry.MENDING)


def check_engine_sees(engine: Engine, wanted_indices: tuple[int, ...], listing: str) -> None:
    """Raise ProvisioningFailure where the engine's --list-devices shows fewer GPUs than wanted."""
    seen = devices_in(listing)
    if len(seen) < len(wanted_indices):
        what = (
            f"the engine {engine.program.file} sees {len(seen)} of the {len(wanted_indices)} GPUs"
            f" {_listed(wanted_indices)} and would run on the CPU"
        )
        hint = f"It needs an engine that is built for these GPUs, and access to their devices. {ON_CPU}"
        raise ProvisioningFailure(what, hint, Retry.MENDING, [engine.program.file])


def present_gpus() -> dict[int, str]:
    """The NVIDIA GPUs of this machine by index, as NVML sees them. Blocks.

    Raises ProvisioningFailure where the library or the driver is not there.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            count = pynvml.nvmlDeviceGetCount()
            return {index: _name(pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count)}
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        what = f"GPUs are configured, but NVIDIA's library cannot see any ({error})"
        hint = f"Install the driver (nvidia-driver, libnvidia-ml1). {ON_CPU}"
        raise ProvisioningFailure(what, hint, Retry.MENDING) from error


def _name(handle: object) -> str:
    import pynvml

    name = pynvml.nvmlDeviceGetName(handle)
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def mask_text(indices: tuple[int, ...]) -> str:
    """`device_mask` as handoff files say it."""
    return ",".join(map(str, indices)) or "cpu"


def _listed(indices: list[int] | tuple[int, ...]) -> str:
    return ",".join(map(str, indices))
