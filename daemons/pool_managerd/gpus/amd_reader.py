"""Reads AMD GPUs from the files of amdgpu: Documentation/gpu/amdgpu/driver-misc.rst and thermal.rst of Linux."""

from pathlib import Path

from pool_managerd.gpus.reader import Reading, bounded
from pool_managerd.gpus.sysfs import SYSFS, cards, degrees, device_name, hwmon, number_of, pci_address, scaled, text_of
from pool_managerd.pools.devices import Gpu

PCI_VENDOR = "0x1002"


class AmdReader:
    """AMD GPUs in the order of their PCI addresses."""

    vendor = "amd"
    own_indices = False

    def __init__(self, sysfs: Path = SYSFS) -> None:
        self._sysfs = sysfs
        self._cards: list[Path] = []

    def read(self, *, discover: bool) -> Reading:
        if discover:
            self._cards = cards(PCI_VENDOR, self._sysfs)
        return Reading(bounded([gpu for number, card in enumerate(self._cards) if (gpu := _read(number, card))]))

    def close(self) -> None:
        self._cards = []


def _read(number: int, card: Path) -> Gpu | None:
    """Return one GPU; None if its driver is not amdgpu, or the card is gone."""
    device, sensors = card / "device", hwmon(card)
    total, used = number_of(device / "mem_info_vram_total"), number_of(device / "mem_info_vram_used")
    if total is None or used is None:
        return None
    integrated = _is_integrated(sensors)
    if integrated:  # what the firmware has set aside, and what the kernel may add
        total += number_of(device / "mem_info_gtt_total") or 0
        used += number_of(device / "mem_info_gtt_used") or 0
    address, unique = pci_address(card), text_of(device / "unique_id")
    return Gpu(
        index=number,
        uuid=f"GPU-{unique}" if unique else f"PCI-{address}",
        name=device_name(card, PCI_VENDOR, "AMD GPU"),
        vram_total_bytes=total,
        vram_free_bytes=total - used,
        utilization=number_of(device / "gpu_busy_percent"),
        compute_capability=None,
        vendor=AmdReader.vendor,
        pci=address,
        temperature_c=degrees(sensors, "temp1_input"),
        slowdown_c=degrees(sensors, "temp1_crit"),
        power_w=scaled(sensors, 1_000_000, "power1_average", "power1_input"),
        power_limit_w=scaled(sensors, 1_000_000, "power1_cap"),
        clock_mhz=_mhz(sensors),
        unified_memory=integrated,
    )


def _is_integrated(sensors: Path | None) -> bool:
    """Whether the GPU is part of a processor: amdgpu offers neither a fan nor a power limit for those."""
    return sensors is not None and not any((sensors / name).exists() for name in ("power1_cap", "pwm1"))


def _mhz(sensors: Path | None) -> int | None:
    value = scaled(sensors, 1_000_000, "freq1_input")
    return None if value is None else round(value)
