"""Reads NVIDIA GPUs by NVML: what is fixed at each discovery, what changes at each reading.

Owns NVML's initialisation and shutdown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pool_managerd.gpus import nvml as errors
from pool_managerd.gpus.nvml import Nvml
from pool_managerd.gpus.reader import PROCESSES_MAX, Reading, bounded, system_memory
from pool_managerd.gpus.sysfs import has_display_device
from pool_managerd.pools.devices import Gpu, GpuProcess

VENDOR = "nvidia"
PCI_VENDOR = "0x10de"
SLOWDOWN = 1
GRAPHICS_CLOCK = 0
RECOVERY_FIELD = 230
"""NVML_FI_DEV_GET_GPU_RECOVERY_ACTION. pynvml's own number is used if it has one."""
RECOVERY = {
    0: "none",
    1: "gpu_reset",
    2: "node_reboot",
    3: "drain_p2p",
    4: "drain_and_reset",
    5: "recover_imex_domain",
    6: "bus_reset",
    7: "system_reboot",
}
THROTTLE = {
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake",
    0x400: "reliability",
}
"""Bits of nvmlClocksEventReasons. Idle clocks and clocks that an operator has set are not among them."""


@dataclass(frozen=True)
class Handle:
    """A GPU or MIG instance, and what does not change while the driver is loaded."""

    handle: object
    index: int
    uuid: str
    name: str
    pci: str | None
    capability: str | None
    slowdown_c: int | None
    parent_uuid: str | None = None
    mig_index: int | None = None


class NvmlReader:
    """Initialises NVML on first use, and again after a failure."""

    vendor = VENDOR
    own_indices = True

    def __init__(
        self, load: Callable[[], Nvml], has_hardware: Callable[[], bool] = lambda: has_display_device(PCI_VENDOR)
    ) -> None:
        self._load = load
        self._has_hardware = has_hardware
        self._initialised = False
        self._handles: list[Handle] = []
        self._unsupported: set[tuple[str, str]] = set()
        self._absent: Reading | None = None

    @cached_property
    def _nvml(self) -> Nvml:
        return self._load()

    def read(self, *, discover: bool) -> Reading:
        if discover or self._absent is None:
            reading = self._read_all(discover)
            self._absent = reading if reading.absent else None
            return reading
        return self._absent

    def _read_all(self, discover: bool) -> Reading:
        try:
            nvml = self._nvml
        except OSError as error:
            return Reading(problem=f"the NVML library cannot be loaded: {error}", absent=not self._has_hardware())
        try:
            if not self._initialised:
                nvml.nvmlInit()
                self._initialised = discover = True
            if discover:
                self._unsupported.clear()
                self._handles = [handle for index in range(nvml.nvmlDeviceGetCount()) for handle in self._find(index)]
        except nvml.NVMLError as error:
            self.close()
            missing = errors.code_of(error) in (errors.DRIVER_NOT_LOADED, errors.LIBRARY_NOT_FOUND)
            return Reading(problem=errors.words(error), absent=missing and not self._has_hardware())
        return Reading(bounded([gpu for handle in self._handles if (gpu := self._read(handle))]))

    def close(self) -> None:
        """Shut NVML down if it is initialised."""
        self._handles = []
        if self._initialised:
            self._initialised = False
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError:
                return

    def _find(self, index: int) -> list[Handle]:
        """Return the GPU with this index and its MIG instances; nothing if the driver has lost it."""
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = errors.text(nvml.nvmlDeviceGetUUID(handle))
            capability = self._ask(uuid, "nvmlDeviceGetCudaComputeCapability", handle)
            gpu = Handle(
                handle,
                index,
                uuid,
                errors.text(nvml.nvmlDeviceGetName(handle)),
                self._pci(uuid, handle),
                "{}.{}".format(*capability) if capability else None,
                self._ask(uuid, "nvmlDeviceGetTemperatureThreshold", handle, SLOWDOWN),
            )
            return [gpu, *self._instances(gpu)]
        except nvml.NVMLError:
            return []

    def _instances(self, gpu: Handle) -> list[Handle]:
        mode = self._ask(gpu.uuid, "nvmlDeviceGetMigMode", gpu.handle)
        if not mode or not mode[0]:
            return []
        found = []
        for number in range(min(self._ask(gpu.uuid, "nvmlDeviceGetMaxMigDeviceCount", gpu.handle) or 0, 16)):
            handle = self._try("nvmlDeviceGetMigDeviceHandleByIndex", gpu.handle, number)
            if handle is None:
                continue
            uuid = errors.text(self._nvml.nvmlDeviceGetUUID(handle))
            name = errors.text(self._try("nvmlDeviceGetName", handle) or f"{gpu.name} MIG")
            found.append(Handle(handle, gpu.index, uuid, name, gpu.pci, gpu.capability, None, gpu.uuid, number))
        return found

    def _pci(self, uuid: str, handle: object) -> str | None:
        """Return the PCI address with a domain of four digits, as the kernel writes it."""
        info = self._ask(uuid, "nvmlDeviceGetPciInfo", handle)
        if info is None:
            return None
        domain, _colon, rest = errors.text(info.busId).lower().partition(":")
        return f"{domain[-4:]}:{rest}"

    def _read(self, known: Handle) -> Gpu | None:
        """Return one GPU, or None if the driver has lost it."""
        try:
            total, free, unified = self._memory(known)
        except (self._nvml.NVMLError, OSError):
            return None
        gpu = Gpu(
            index=known.index,
            uuid=known.uuid,
            name=known.name,
            vram_total_bytes=total,
            vram_free_bytes=free,
            utilization=None,
            compute_capability=known.capability,
            vendor=VENDOR,
            pci=known.pci,
            unified_memory=unified,
            parent_uuid=known.parent_uuid,
            mig_index=known.mig_index,
        )
        try:
            return gpu if known.mig_index is not None else self._with_sensors(gpu, known)
        except self._nvml.NVMLError:
            return None

    def _memory(self, known: Handle) -> tuple[int, int, bool]:
        """Return total and free bytes, and whether the memory is the machine's, of which NVML reports nothing."""
        memory = self._ask(known.uuid, "nvmlDeviceGetMemoryInfo", known.handle)
        if memory is not None:
            return int(memory.total), int(memory.free), False
        total, available = system_memory()
        return total, available, True

    def _with_sensors(self, gpu: Gpu, known: Handle) -> Gpu:
        def ask(name: str, *arguments: object) -> Any:
            return self._ask(known.uuid, name, known.handle, *arguments)

        load = ask("nvmlDeviceGetUtilizationRates")
        power, limit, energy = (
            ask(f"nvmlDeviceGet{name}") for name in ("PowerUsage", "EnforcedPowerLimit", "TotalEnergyConsumption")
        )
        reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:  # the name in drivers before 535
            reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        processes = ask("nvmlDeviceGetComputeRunningProcesses") or []
        return Gpu(
            **{
                **vars(gpu),
                "utilization": None if load is None else int(load.gpu),
                "temperature_c": ask("nvmlDeviceGetTemperature", 0),
                "slowdown_c": known.slowdown_c,
                "power_w": None if power is None else power / 1000,
                "power_limit_w": None if limit is None else limit / 1000,
                "energy_j": None if energy is None else energy / 1000,
                "clock_mhz": ask("nvmlDeviceGetClockInfo", GRAPHICS_CLOCK),
                "throttle": tuple(name for bit, name in THROTTLE.items() if reasons & bit),
                "recovery": self._recovery(known),
                "processes": tuple(GpuProcess(int(p.pid), p.usedGpuMemory) for p in processes[:PROCESSES_MAX]),
                "process_count": len(processes),
            }
        )

    def _recovery(self, known: Handle) -> str | None:
        field = getattr(self._nvml, "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION", RECOVERY_FIELD)
        values = self._ask(known.uuid, "nvmlDeviceGetFieldValues", known.handle, [field])
        if not values or values[0].nvmlReturn:
            return None
        return RECOVERY.get(int(values[0].value.uiVal))

    def _ask(self, uuid: str, name: str, *arguments: object) -> Any:
        """Call a function of NVML; None if this GPU or driver does not have it, which is remembered until the next
        discovery. Raises NVMLError if the GPU is lost."""
        if (uuid, name) in self._unsupported:
            return None
        try:
            return getattr(self._nvml, name)(*arguments)
        except self._nvml.NVMLError as error:
            code = errors.code_of(error)
            if code == errors.GPU_IS_LOST:
                raise
            if code in (errors.NOT_SUPPORTED, errors.FUNCTION_NOT_FOUND):
                self._unsupported.add((uuid, name))
            elif name == "nvmlDeviceGetMemoryInfo":
                raise
            return None

    def _try(self, name: str, *arguments: object) -> Any:
        try:
            return getattr(self._nvml, name)(*arguments)
        except self._nvml.NVMLError:
            return None
