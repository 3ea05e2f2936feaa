"""The protocol of GPU readers, one for each vendor, and the values that they return."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pool_managerd.pools.devices import Gpu

PROCESSES_MAX = 32
"""Processes that are listed for one GPU; the number of all is reported besides."""
DEVICES_MAX = 64
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Reading:
    """The GPUs of one vendor as read now. `problem` says why some or all are missing, if so.

    `absent`: the vendor's driver is not installed here, which matters only on a machine without any other GPU.
    """

    devices: tuple[Gpu, ...] = ()
    problem: str | None = None
    absent: bool = False


class Reader(Protocol):
    """Reads the GPUs of one vendor. Its methods block, and may hang with a broken driver; one call at a time.

    With `own_indices`, the vendor's tools number the GPUs as the reader does. Otherwise the indices mean nothing.
    """

    vendor: str
    own_indices: bool

    def read(self, *, discover: bool) -> Reading:
        """Return the GPUs. With `discover`, also look for new ones. Errors of drivers become `Reading.problem`."""
        ...

    def close(self) -> None:
        """Release what the reader holds. It may be used again."""
        ...


def system_memory(meminfo: Path = MEMINFO) -> tuple[int, int]:
    """Return the machine's memory and what of it is available, in bytes. Raises OSError. Blocks."""
    sizes = {}
    for line in meminfo.read_text().splitlines():
        name, _colon, value = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            sizes[name] = int(value.split()[0]) * 1024
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)


def bounded(devices: list[Gpu]) -> tuple[Gpu, ...]:
    """Return at most DEVICES_MAX GPUs with plausible values: a driver's nonsense must not stop the daemon."""
    return tuple(
        replace(
            gpu,
            name=gpu.name[:256],
            vram_total_bytes=max(0, gpu.vram_total_bytes),
            vram_free_bytes=min(max(0, gpu.vram_free_bytes), max(0, gpu.vram_total_bytes)),
            processes=gpu.processes[:PROCESSES_MAX],
        )
        for gpu in devices[:DEVICES_MAX]
    )
