"""The GPUs of a pool. A configured GPU that is absent is an error; there is no fallback to the CPU."""

from collections.abc import Mapping

from engine_provisioner.engine import Engine
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch.probes import devices_in
from engine_provisioner.spec.pool_spec import Pool
from llama_orch.settings.types import GpuMask

MASK = "ENGINE_PROVISIONER_GPU_MASK"
ON_CPU = (
    'To run a pool on the CPU, set devices = "cpu" in its file (orchctl run --devices cpu). To run all pools there, '
    f"set {MASK}=cpu in /etc/llama-orch/engine-provisioner.env, then systemctl restart engine-provisioner."
)


def select(pool: Pool, mask: GpuMask) -> tuple[int, ...]:
    """Return the indices of the pool's GPUs, empty for the CPU.

    Raises ProvisioningFailure (Retry.NEVER) if the pool contradicts the mask.
    """
    if pool.devices is None:
        return mask.indices
    if mask.cpu and pool.devices:
        message = f"devices = {pool.devices} contradicts {MASK}=cpu, which runs engines on the CPU"
        raise ProvisioningFailure(message, "Remove the key devices, or list the GPUs in the mask.", Retry.NEVER)
    outside = [index for index in pool.devices if index not in mask.indices]
    if outside:
        message = f"devices: GPU {_listed(outside)} is not in {MASK}={mask}"
        raise ProvisioningFailure(message, "Add it to the mask, or change devices.", Retry.NEVER)
    return tuple(pool.devices)


def check_present(gpus: tuple[int, ...], present: Mapping[int, str]) -> None:
    """Raise ProvisioningFailure unless all `gpus` are `present` (index: name)."""
    absent = [index for index in gpus if index not in present]
    if absent:
        found = ", ".join(f"{index} ({name})" for index, name in sorted(present.items())) or "none"
        message = f"GPU {_listed(absent)} is configured but absent (present: {found})"
        raise ProvisioningFailure(message, f"Correct devices or {MASK}. {ON_CPU}", Retry.AFTER_FIX)


def check_visible(engine: Engine, gpus: tuple[int, ...], listing: str) -> None:
    """Raise ProvisioningFailure if the output of --list-devices has fewer devices than `gpus`."""
    visible = devices_in(listing)
    if len(visible) < len(gpus):
        message = (
            f"the engine {engine.program.file} can use only {len(visible)} of {len(gpus)} configured GPUs"
            f" ({_listed(gpus)}) and would run on the CPU"
        )
        hint = f"Use an engine built for these GPUs, and check access to their device files. {ON_CPU}"
        raise ProvisioningFailure(message, hint, Retry.AFTER_FIX, [engine.program.file])


def present_gpus() -> dict[int, str]:
    """Return the names of NVIDIA GPUs by NVML index. Blocks.

    Raises ProvisioningFailure if the library or the driver is missing.
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
        message = f"GPUs are configured, but NVML finds none ({error})"
        hint = f"Install the driver (nvidia-driver, libnvidia-ml1). {ON_CPU}"
        raise ProvisioningFailure(message, hint, Retry.AFTER_FIX) from error


def _name(handle: object) -> str:
    import pynvml

    name = pynvml.nvmlDeviceGetName(handle)
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def memory_total(gpus: tuple[int, ...]) -> int | None:
    """Return the bytes of memory of all `gpus` together, None if one does not tell, as those that share it. Blocks."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in gpus]
            return sum(int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def mask_text(indices: tuple[int, ...]) -> str:
    """Return the `device_mask` of a handoff file."""
    return ",".join(map(str, indices)) or "cpu"


def _listed(indices: list[int] | tuple[int, ...]) -> str:
    return ",".join(map(str, indices))
