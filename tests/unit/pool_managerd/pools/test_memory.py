"""The machine's memory is read from /proc/meminfo."""

from pathlib import Path

import pytest

from pool_managerd.pools.devices import NOT_DISCOVERED
from pool_managerd.pools.memory import MachineMemory, budgets, parse_meminfo, read_machine_memory

MEMINFO = "MemTotal:       16000 kB\nMemFree:          10 kB\nMemAvailable:    9000 kB\nHugePages_Total:  0\n"


def test_total_and_available_memory_are_parsed() -> None:
    assert parse_meminfo(MEMINFO) == MachineMemory(16_000 << 10, 9_000 << 10)


@pytest.mark.parametrize("text", ["", "MemTotal: x kB", "MemTotal: 5 kB\n"])
def test_incomplete_meminfo_gives_no_memory(text: str) -> None:
    assert parse_meminfo(text) is None


def test_unreadable_memory_has_no_budget(tmp_path: Path) -> None:
    assert budgets(NOT_DISCOVERED, read_machine_memory(tmp_path / "absent")) == []


def test_memory_of_this_machine_is_read() -> None:
    found = read_machine_memory()
    assert found is not None
    assert 0 < found.available_bytes <= found.total_bytes
