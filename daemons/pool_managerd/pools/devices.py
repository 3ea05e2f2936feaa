"""GPUs as values, and which of them a pool's device mask names. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU. Memory in bytes, `utilization` in percent; None if the driver does not report it."""

    index: int
    uuid: str
    name: str
    vram_total_bytes: int
    vram_free_bytes: int
    utilization: int | None
    compute_capability: str | None


@dataclass(frozen=True)
class Gpus:
    """The GPUs of this machine; `problem` says why there are none, if so."""

    devices: tuple[Gpu, ...] = ()
    problem: str | None = None


NOT_DISCOVERED = Gpus(problem="GPU discovery has not finished yet")


def named_devices(mask: str | None) -> tuple[str, ...]:
    """Return the GPUs that a device mask names, by index or UUID; none for `cpu` and for no mask."""
    parts = (part.strip() for part in (mask or "").split(","))
    return tuple(part for part in parts if part and part.lower() != "cpu")


def devices_of(mask: str | None, gpus: Gpus) -> tuple[Gpu, ...]:
    """Return the GPUs of this machine that `mask` names, each once."""
    return tuple(dict.fromkeys(gpu for name in named_devices(mask) for gpu in _matching(name, gpus)))


def _matching(name: str, gpus: Gpus) -> Iterator[Gpu]:
    return (gpu for gpu in gpus.devices if name in (str(gpu.index), gpu.uuid))


def device_problem(mask: str | None, gpus: Gpus) -> str | None:
    """Return why this machine cannot have an engine with `mask`, or None."""
    missing = [name for name in named_devices(mask) if not any(_matching(name, gpus))]
    if not missing:
        return None
    named = f"device_mask {mask} names GPU {', '.join(missing)}"
    if gpus.problem:
        return f"{named}, but no GPU is visible: {gpus.problem}"
    present = ", ".join(str(gpu.index) for gpu in gpus.devices) or "none"
    return f"{named}, which this machine does not have (it has: {present})"
