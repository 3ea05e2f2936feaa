"""Metrics of the process do not need /proc/stat."""

import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from llama_orch.telemetry.process_metrics import ProcessMetrics


def test_process_metrics_do_not_need_proc_stat(tmp_path: Path) -> None:
    registry, proc = CollectorRegistry(), tmp_path / "proc"
    proc.mkdir()
    (proc / "self").symlink_to("/proc/self")  # as with ProcSubset=pid: no /proc/stat
    ProcessMetrics(proc=str(proc), registry=registry)
    started = registry.get_sample_value("process_start_time_seconds")
    assert started is not None
    assert time.time() - 86_400 < started <= time.time() + 1
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds"):
        assert registry.get_sample_value(name)
