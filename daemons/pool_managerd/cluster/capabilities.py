"""The machine's hardware as reported to the queen: GPUs, CPU cores, memory."""

import os
from pathlib import Path

from llama_orch.contracts.nodes import MAX_GPUS, NodeCapabilities, NodeGpu
from pool_managerd.pools.devices import Gpus
from pool_managerd.pools.memory import MEMINFO, read_machine_memory

NAME_LIMIT = 256


def cores() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


def read_memory(path: Path = MEMINFO) -> int:
    """Return the machine's memory in bytes; 0 if it cannot be read. Blocks."""
    found = read_machine_memory(path)
    return found.total_bytes if found else 0


def capabilities(gpus: Gpus, cpu_cores: int, ram_total_bytes: int) -> NodeCapabilities:
    whole = [gpu for gpu in gpus.devices if gpu.mig_index is None]
    devices = [
        NodeGpu(
            device_id=gpu.index,
            name=gpu.name[:NAME_LIMIT],
            vram_total_bytes=gpu.vram_total_bytes,
            compute_capability=gpu.compute_capability,
        )
        for gpu in whole[:MAX_GPUS]
    ]
    return NodeCapabilities(gpus=devices, cpu_cores=cpu_cores, ram_total_bytes=ram_total_bytes)
