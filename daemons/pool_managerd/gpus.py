"""Periodic discovery of this machine's NVIDIA GPUs by NVML.

NVML blocks, and may hang with a broken driver, so that it is called in a thread of its own. Owns its initialisation and
shutdown.
"""

import ctypes
import importlib
from collections.abc import Callable
from functools import cached_property
from typing import Protocol, cast

import trio

from llama_orch.telemetry.events.pools import GPU_LOST, GPUS_FOUND, GPUS_UNKNOWN
from llama_orch.telemetry.records import emit
from pool_managerd.pools.devices import Gpu, Gpus
from pool_managerd.pools.memory import read_machine_memory
from pool_managerd.pools.node_pools import NodePools

NVML_LIMIT_S = 10.0
LIBRARY = "libnvidia-ml.so.1"
NO_DEVICE = Gpus(problem="the driver reports no GPU")


class Memory(Protocol):
    """nvmlMemory_t, in bytes."""

    total: int
    free: int


class Utilization(Protocol):
    """nvmlUtilization_t, in percent."""

    gpu: int


class Nvml(Protocol):
    """The part of the module pynvml that is used. Its functions raise NVMLError."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, handle: object) -> str: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: object) -> str: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: object) -> Memory: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, handle: object) -> Utilization: ...  # noqa: N802
    def nvmlDeviceGetCudaComputeCapability(self, handle: object) -> tuple[int, int]: ...  # noqa: N802


def real_nvml() -> Nvml:
    """Import pynvml. Done late and in a thread, and only if the NVML library exists: it is a large module.

    Raises OSError if the library is missing.
    """
    ctypes.CDLL(LIBRARY)
    return cast(Nvml, importlib.import_module("pynvml"))


class Discovery:
    """Reads GPUs by NVML, initialised on first use and again after a failure. Blocks; for one thread at a time."""

    def __init__(self, load: Callable[[], Nvml]) -> None:
        self._load = load
        self._initialised = False

    @cached_property
    def _nvml(self) -> Nvml:
        return self._load()

    def read(self) -> Gpus:
        """Return the current GPUs. Errors of driver and hardware become `Gpus.problem`."""
        try:
            nvml = self._nvml
        except OSError as error:
            return Gpus(problem=f"the NVML library cannot be loaded: {error}")
        try:
            if not self._initialised:
                nvml.nvmlInit()
                self._initialised = True
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            self.close()
            return Gpus(problem=f"NVML reports: {error}")
        devices = tuple(gpu for index in range(count) if (gpu := self._device(index)))
        return Gpus(devices) if devices else NO_DEVICE

    def close(self) -> None:
        """Shut NVML down if it is initialised."""
        if self._initialised:
            self._initialised = False
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError:
                return

    def _device(self, index: int) -> Gpu | None:
        """Return one GPU, or None if the driver has lost it."""
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            return Gpu(
                index=index,
                uuid=self._nvml.nvmlDeviceGetUUID(handle),
                name=self._nvml.nvmlDeviceGetName(handle),
                vram_total_bytes=int(memory.total),
                vram_free_bytes=int(memory.free),
                utilization=self._utilization(handle),
                compute_capability=self._capability(handle),
            )
        except self._nvml.NVMLError:
            return None

    def _utilization(self, handle: object) -> int | None:
        try:
            return int(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except self._nvml.NVMLError:  # not supported by all devices
            return None

    def _capability(self, handle: object) -> str | None:
        try:
            return "{}.{}".format(*self._nvml.nvmlDeviceGetCudaComputeCapability(handle))
        except self._nvml.NVMLError:
            return None


async def watch_gpus(discovery: Discovery, node_pools: NodePools, interval_s: float) -> None:
    """Update the GPUs and the memory every `interval_s` seconds, and when a pool was loaded or unloaded, forever.

    Shuts NVML down when cancelled.
    """
    limiter = trio.CapacityLimiter(1)
    changed = False
    try:
        while True:
            gpus = Gpus(problem=f"NVML did not answer within {NVML_LIMIT_S:g} s")
            with trio.move_on_after(NVML_LIMIT_S):
                gpus = await trio.to_thread.run_sync(discovery.read, limiter=limiter, abandon_on_cancel=True)
            log_changes(node_pools.gpus, gpus)
            machine = await trio.to_thread.run_sync(read_machine_memory)
            node_pools.set_gpus(gpus, machine, changed=changed)
            changed = await node_pools.loads_changed.wait(interval_s)
    finally:
        with trio.move_on_after(1.0, shield=True):
            await trio.to_thread.run_sync(discovery.close, limiter=limiter, abandon_on_cancel=True)


def log_changes(before: Gpus, after: Gpus) -> None:
    """Log the changes since the last discovery, if any."""
    if after.problem and after.problem != before.problem:
        emit(GPUS_UNKNOWN, reason=after.problem)
    known = {gpu.uuid for gpu in before.devices}
    if new := [gpu for gpu in after.devices if gpu.uuid not in known]:
        emit(GPUS_FOUND, gpus=", ".join(f"{gpu.index} {gpu.name}" for gpu in new))
    present = {gpu.uuid for gpu in after.devices}
    for gpu in before.devices:
        if gpu.uuid not in present:
            emit(GPU_LOST, device=f"{gpu.index} ({gpu.name})", reason=after.problem or "the driver no longer lists it")
