"""Reads Intel GPUs from the files of the drivers i915 and xe, which tell little.

Source: Documentation/ABI/testing/sysfs-driver-intel-* of Linux.
Neither driver reports in sysfs how much memory is in use, so that all memory of a discrete card counts as free.
"""

import time
from pathlib import Path

from pool_managerd.gpus.reader import MEMINFO, Reading, bounded, system_memory
from pool_managerd.gpus.sysfs import (
    SYSFS,
    cards,
    degrees,
    device_name,
    hwmon,
    number_of,
    pci_address,
    scaled,
    text_of,
)
from pool_managerd.pools.devices import Gpu

PCI_VENDOR = "0x8086"
INTEGRATED = "0000:00:02.0"
"""The address of the GPU in every Intel processor that has one."""
MEMORY_FILES = ("lmem_total_bytes", "device/tile0/physical_vram_size_bytes", "device/tile0/vram_size_bytes")
CLOCK_FILES = ("device/tile0/gt0/freq0/act_freq", "gt/gt0/rps_act_freq_mhz", "gt_act_freq_mhz")
PREFETCHABLE_MEMORY = 0x2200
"""IORESOURCE_MEM and IORESOURCE_PREFETCH in the flags of a PCI resource."""


class IntelReader:
    """Intel GPUs in the order of their PCI addresses. Power is the mean since the last reading."""

    vendor = "intel"
    own_indices = False

    def __init__(self, sysfs: Path = SYSFS, meminfo: Path = MEMINFO) -> None:
        self._sysfs = sysfs
        self._meminfo = meminfo
        self._cards: list[Path] = []
        self._energy: dict[str, tuple[float, float]] = {}

    def read(self, *, discover: bool) -> Reading:
        if discover:
            self._cards = cards(PCI_VENDOR, self._sysfs)
        try:
            return Reading(bounded([gpu for index, card in enumerate(self._cards) if (gpu := self._read(index, card))]))
        except OSError as error:
            return Reading(problem=f"the memory of integrated GPUs is unknown: {error}")

    def close(self) -> None:
        self._cards = []

    def _read(self, number: int, card: Path) -> Gpu | None:
        """Return one GPU, None if the card is gone. Raises OSError."""
        if text_of(card / "device/vendor") is None:
            return None
        address, sensors = pci_address(card), hwmon(card)
        integrated = address == INTEGRATED
        total, free = system_memory(self._meminfo) if integrated else (discrete_memory(card),) * 2
        energy_j = scaled(sensors, 1_000_000, "energy1_input", "energy2_input")
        return Gpu(
            index=number,
            uuid=f"PCI-{address}",
            name=device_name(card, PCI_VENDOR, "Intel GPU"),
            vram_total_bytes=total,
            vram_free_bytes=free,
            utilization=None,
            compute_capability=None,
            vendor=self.vendor,
            pci=address,
            temperature_c=degrees(sensors, "temp1_input", "temp2_input"),
            slowdown_c=degrees(sensors, "temp1_crit", "temp2_crit"),
            power_w=self._power(address, energy_j),
            power_limit_w=scaled(sensors, 1_000_000, "power1_max", "power2_max", "power1_cap", "power2_cap"),
            energy_j=energy_j,
            clock_mhz=next((mhz for name in CLOCK_FILES if (mhz := number_of(card / name)) is not None), None),
            unified_memory=integrated,
        )

    def _power(self, address: str, energy_j: float | None) -> float | None:
        if energy_j is None:
            return None
        now_s, before = time.monotonic(), self._energy.get(address)
        self._energy[address] = now_s, energy_j
        if before is None or now_s <= before[0] or energy_j < before[1]:
            return None
        return (energy_j - before[1]) / (now_s - before[0])


def discrete_memory(card: Path) -> int:
    """Return a discrete card's memory in bytes as the driver tells it, or the size of its largest memory window."""
    for name in MEMORY_FILES:
        if size := number_of(card / name):
            return size
    sizes = [0]
    for line in (text_of(card / "device/resource") or "").splitlines()[:6]:
        start, end, flags = (int(value, 16) for value in line.split())
        if flags & PREFETCHABLE_MEMORY == PREFETCHABLE_MEMORY:
            sizes.append(end - start + 1)
    return max(sizes)
