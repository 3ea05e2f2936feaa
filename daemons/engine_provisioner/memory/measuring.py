"""The memory that a running engine occupies, on its GPUs and in the machine. Blocks; never raises.

On GPUs by NVML's list of processes. In the machine's memory:

- Of a child process, the resident set in /proc/PID/statm.
- Of a unit, from memory.stat of its control group (ProtectProc=invisible hides the process, and MemoryCurrent= also
  counts cached files): anonymous memory and mapped files. The kernel accounts a
  mapped page to the group that read it first, which may be this daemon while it verified the model. So the whole model
  counts if the engine runs on the CPU, where it maps the file, unless it was started with --no-mmap.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine_provisioner.memory.need import CPU

STATM = "/proc/{pid}/statm"
LIMIT_BYTES = 1 << 16


def measure(pid: int, devices: tuple[int, ...], cgroup: Path | None, mapped_bytes: int) -> dict[str, int]:
    """Return the bytes on each device that could be measured; `mapped_bytes` is the size of the model's mapped file."""
    resident = resident_bytes(pid) if cgroup is None else group_bytes(cgroup, 0 if devices else mapped_bytes)
    on_gpus = dict(gpu_bytes(pid, devices)) if devices else {}
    return on_gpus | ({CPU: resident} if resident else {})


def resident_bytes(pid: int) -> int | None:
    """Return the resident set of a process, None if it is gone or hidden."""
    try:
        fields = Path(STATM.format(pid=pid)).read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def group_bytes(cgroup: Path, mapped_bytes: int) -> int | None:
    """Return what the processes of a control group occupy, None if it cannot be read."""
    try:
        with (cgroup / "memory.stat").open("rb") as file:
            found = memory_stat(file.read(LIMIT_BYTES).decode("ascii", "replace"))
    except OSError:
        return None
    if "anon" not in found:
        return None
    return found["anon"] + max(found.get("file_mapped", 0), mapped_bytes)


def memory_stat(text: str) -> Mapping[str, int]:
    """Parse memory.stat of a control group (cgroup v2). Lines of another form are left out."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def gpu_bytes(pid: int, devices: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    """Yield each GPU by its NVML index and the bytes that the process uses there, where the driver tells."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return
    try:
        for device in devices:
            handle = pynvml.nvmlDeviceGetHandleByIndex(device)
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            used = sum(process.usedGpuMemory or 0 for process in processes if process.pid == pid)
            if used:
                yield str(device), used
    except pynvml.NVMLError:
        return
    finally:
        pynvml.nvmlShutdown()
