"""GPUs as values, and which of them a pool's device mask names. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

THERMAL = frozenset({"sw_thermal_slowdown", "hw_thermal_slowdown", "hw_slowdown", "hw_power_brake"})
"""Reasons for reduced clocks that need attention; power caps and idle clocks are part of normal operation."""


@dataclass(frozen=True)
class GpuProcess:
    """A process with memory on a GPU, in bytes; None if the driver does not report it."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance of it. None if the driver does not report a value.

    Memory in bytes, `utilization` in percent, temperatures in °C, power in W, `energy_j` in J since the driver was
    loaded. `pci` is the address as in `0000:10:1c.0`. With `unified_memory`, memory is the machine's. A MIG instance
    has the index of its GPU, a `mig_index` and a `parent_uuid`. `throttle` names why the clocks are reduced;
    `slowdown_c` is the temperature from which the hardware reduces them. `recovery` is the driver's recovery action.
    `processes` is bounded, `process_count` is not.
    """

    index: int
    uuid: str
    name: str
    vram_total_bytes: int
    vram_free_bytes: int
    utilization: int | None
    compute_capability: str | None
    vendor: str = "nvidia"
    pci: str | None = None
    temperature_c: int | None = None
    slowdown_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    clock_mhz: int | None = None
    throttle: tuple[str, ...] = ()
    recovery: str | None = None
    processes: tuple[GpuProcess, ...] = ()
    process_count: int = 0
    unified_memory: bool = False
    parent_uuid: str | None = None
    mig_index: int | None = None

    @property
    def label(self) -> str:
        """The index; `GPU:INSTANCE` for a MIG instance, as nvidia-smi and containers write it."""
        return str(self.index) if self.mig_index is None else f"{self.index}:{self.mig_index}"

    @property
    def vram_used_bytes(self) -> int:
        return self.vram_total_bytes - self.vram_free_bytes

    @property
    def overheated(self) -> str | None:
        """Why the GPU runs slower than it could, in words; None if it does not."""
        if self.temperature_c is not None and self.slowdown_c is not None and self.temperature_c >= self.slowdown_c:
            return f"{self.temperature_c} °C, at or above its slowdown temperature of {self.slowdown_c} °C"
        reasons = [reason.replace("_", " ") for reason in self.throttle if reason in THERMAL]
        at = f" at {self.temperature_c} °C" if self.temperature_c is not None else ""
        return f"clocks are reduced{at} ({', '.join(reasons)})" if reasons else None


@dataclass(frozen=True)
class MissingGpu:
    """A GPU that was seen before, as last read. Lost: its driver no longer has it. Otherwise its driver fails."""

    gpu: Gpu
    reason: str
    lost: bool


@dataclass(frozen=True)
class Gpus:
    """The GPUs of this machine; `problem` says why some or all could not be read, if so.

    `fences` has, by UUID, why and until when no work is placed on a GPU.
    """

    devices: tuple[Gpu, ...] = ()
    problem: str | None = None
    missing: tuple[MissingGpu, ...] = ()
    fences: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def known(self) -> Iterator[Gpu]:
        """The GPUs that were read now or before."""
        return chain(self.devices, (missing.gpu for missing in self.missing))

    def fence_of(self, gpu: Gpu) -> str | None:
        """Return why `gpu`, or the GPU that it is an instance of, is fenced."""
        return self.fences.get(gpu.uuid) or self.fences.get(gpu.parent_uuid or "")


NOT_DISCOVERED = Gpus(problem="GPU discovery has not finished yet")


def named_devices(mask: str | None) -> tuple[str, ...]:
    """Return the GPUs that a device mask names, by index or UUID; none for `cpu` and for no mask."""
    parts = (part.strip() for part in (mask or "").split(","))
    return tuple(part for part in parts if part and part.lower() != "cpu")


def devices_of(mask: str | None, gpus: Gpus) -> tuple[Gpu, ...]:
    """Return the present GPUs of this machine that `mask` names, each once."""
    found = (gpu for name in named_devices(mask) for gpu in _matching(name, gpus.devices))
    return tuple({gpu.uuid: gpu for gpu in found}.values())


def _matching(name: str, devices: Iterable[Gpu]) -> Iterator[Gpu]:
    return (gpu for gpu in devices if name in (gpu.label, gpu.uuid))


def known_devices_of(mask: str | None, gpus: Gpus) -> tuple[Gpu, ...]:
    """Return the GPUs that `mask` names. A name means a missing GPU only if no present one has it."""
    found: dict[str, Gpu] = {}
    for name in named_devices(mask):
        matching = tuple(_matching(name, gpus.devices)) or _matching(name, (each.gpu for each in gpus.missing))
        found |= {gpu.uuid: gpu for gpu in matching}
    return tuple(found.values())


def fence_problem(mask: str | None, gpus: Gpus) -> str | None:
    """Return why an engine with `mask` must not get work, if one of its GPUs is fenced."""
    return next((reason for gpu in known_devices_of(mask, gpus) if (reason := gpus.fence_of(gpu))), None)


def device_problem(mask: str | None, gpus: Gpus) -> str | None:
    """Return why this machine cannot have an engine with `mask`, or None.

    A GPU whose driver does not answer is no reason: its engine may work, and its health check tells.
    """
    if fenced := fence_problem(mask, gpus):
        return fenced
    known = tuple(gpus.known)
    absent = [name for name in named_devices(mask) if not any(_matching(name, known))]
    if absent:
        return _absent(mask, absent, gpus)
    named = {gpu.uuid for gpu in known_devices_of(mask, gpus)}
    lost = next((each for each in gpus.missing if each.lost and each.gpu.uuid in named), None)
    return f"GPU {lost.gpu.label} ({lost.gpu.name}) is lost: {lost.reason}" if lost else None


def _absent(mask: str | None, absent: list[str], gpus: Gpus) -> str:
    named = f"device_mask {mask} names GPU {', '.join(absent)}"
    if gpus.problem and not gpus.devices:
        return f"{named}, but no GPU is visible: {gpus.problem}"
    present = ", ".join(gpu.label for gpu in gpus.devices) or "none"
    return f"{named}, which this machine does not have (it has: {present})"
