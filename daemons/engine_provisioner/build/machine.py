"""The cores and the memory that a build may use."""

import os
import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


def cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def available_bytes(meminfo: Path = MEMINFO) -> int:
    """Return the memory that is available without swapping: what engines use is not. Blocks."""
    try:
        match = AVAILABLE.search(meminfo.read_text())
    except OSError:
        match = None
    return int(match[1]) << 10 if match else 0
