"""The memory of this machine's devices, as the queen budgets it. Parsing and conversion are pure."""

import re
from dataclasses import dataclass
from pathlib import Path

from llama_orch.contracts.pools import MemoryBudget
from pool_managerd.pools.devices import Gpus

MEMINFO = Path("/proc/meminfo")
CPU = "cpu"


@dataclass(frozen=True)
class MachineMemory:
    """The machine's memory in bytes. `available` is the kernel's estimate of what programs can get without swapping."""

    total_bytes: int
    available_bytes: int


def parse_meminfo(meminfo: str) -> MachineMemory | None:
    """Return MemTotal and MemAvailable of /proc/meminfo; None if one is missing."""
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", meminfo, re.MULTILINE))
    if len(found) < 2:
        return None
    return MachineMemory(int(found["MemTotal"]) * 1024, int(found["MemAvailable"]) * 1024)


def read_machine_memory(path: Path = MEMINFO) -> MachineMemory | None:
    """Return the machine's memory, None if it cannot be read. Blocks."""
    try:
        return parse_meminfo(path.read_text())
    except OSError:
        return None


def budgets(gpus: Gpus, machine: MachineMemory | None) -> list[MemoryBudget]:
    """Return a budget for each GPU that engines name by its index, and for the machine's own memory."""
    found = [
        MemoryBudget(
            device=gpu.label,
            total_bytes=gpu.vram_total_bytes,
            free_bytes=gpu.vram_free_bytes,
            unified=gpu.unified_memory,
        )
        for gpu in gpus.devices
        if gpu.label.isdigit()
    ]
    if machine:
        found.append(MemoryBudget(device=CPU, total_bytes=machine.total_bytes, free_bytes=machine.available_bytes))
    return found
