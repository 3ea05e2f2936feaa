"""The hardware that a node reports."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pool_managerd.cluster.capabilities import capabilities, cores, read_memory
from pool_managerd.pools.devices import Gpu, Gpus
from tests.unit.pool_managerd.values import TWO_GPUS


def test_memory_and_cores_of_this_machine_are_read() -> None:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert abs(read_memory() - pages) <= 1 << 20
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_unreadable_memory_is_0(tmp_path: Path) -> None:
    assert read_memory(tmp_path / "meminfo") == 0


def test_gpus_are_reported_by_nvml_index() -> None:
    hardware = capabilities(TWO_GPUS, 8, 1 << 34)
    assert (hardware.cpu_cores, hardware.ram_total_bytes) == (8, 1 << 34)
    assert [(gpu.device_id, gpu.name, gpu.vram_total_bytes, gpu.compute_capability) for gpu in hardware.gpus] == [
        (0, "H100", 80, "9.0"),
        (1, "H100", 80, "9.0"),
    ]


@given(st.integers(0, 200), st.text(max_size=600))
def test_driver_values_are_bounded_by_the_contract(count: int, name: str) -> None:
    devices = tuple(Gpu(index, f"GPU-{index}", name, 1 << 36, 0, None, None) for index in range(count))
    assert len(capabilities(Gpus(devices), 1, 1).gpus) == min(count, 64)
