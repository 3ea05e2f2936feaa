"""Statistics for benchmarks: percentiles of times, and resource usage of a process."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that at least `share` of them do not exceed, or nan if there are none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1_000_000) * len(ordered) // 1_000_000) - 1))]


def spread(seconds: Sequence[float]) -> str:
    """Format p50, p99 and maximum of `seconds` in milliseconds."""
    p50, p99, longest = (1000 * percentile(seconds, share) for share in (0.5, 0.99, 1.0))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {longest:.1f} ms"


@dataclass(frozen=True)
class Cost:
    """Resource usage of a process: CPU in seconds, resident memory in MB (10^6 bytes)."""

    cpu_s: float
    rss_mb: float


def cost(pid: int) -> Cost:
    """Return the resource usage of the process `pid` with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return Cost((int(fields[11]) + int(fields[12])) / TICKS, kib * 1024 / 1e6)


def thread_cpu(pid: int) -> dict[int, float]:
    """Return the CPU time of each thread of the process in seconds. The main thread has the id `pid`."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        fields = (thread / "stat").read_text().rpartition(")")[2].split()
        found[int(thread.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


def cores() -> tuple[int, int]:
    """Return the core for queen-rbee and the core for everything else (the same one if there is only one)."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Bind this process and its children to `core` for the duration of the block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
