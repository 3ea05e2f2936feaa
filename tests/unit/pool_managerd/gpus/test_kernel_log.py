"""The kernel's messages in the journal: with an imitation of the reader, and in a real journal if one can be made."""

import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pool_managerd.gpus.fault_source import BATCH_MAX, SourceUnavailable
from pool_managerd.gpus.faults import Fault, Reset, Sighting
from pool_managerd.gpus.kernel_log import KernelLog
from tests.engines.fixtures import skip_or_fail
from tests.systemd_module import systemd_module

JOURNAL_REMOTE = shutil.which("systemd-journal-remote", path="/lib/systemd:/usr/lib/systemd")
XID = "NVRM: Xid (PCI:0000:10:1c): 79, pid=1234, GPU has fallen off the bus."
RESET = "GPU reset executed: GPU-455d8f70-2051-db6c-0430-ffc457bff834, success: true"


@dataclass
class ImitationReader:
    """Returns `entries`, one at a time, from the position that the log has sought."""

    entries: list[tuple[float, str]]
    sought: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments, **_fields: self.sought.append(name)

    def get_next(self) -> dict[str, Any]:
        if not self.entries:
            return {}
        at_s, message = self.entries.pop(0)
        return {"MESSAGE": message, "__REALTIME_TIMESTAMP": datetime.fromtimestamp(at_s, UTC)}


def follow(patch: pytest.MonkeyPatch, reader: object, since_s: float | None) -> KernelLog:
    package, journal = ModuleType("systemd"), SimpleNamespace(Reader=lambda _flags: reader, SYSTEM_ONLY=4)
    package.journal = journal  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "systemd", package)
    log = KernelLog(since_s)
    log.open()
    return log


def take(log: KernelLog) -> list[Sighting]:
    return log.wait(0.0, threading.Event())


def test_entries_after_the_given_time_count(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ImitationReader([(9.0, XID), (10.0, XID), (11.0, "usb 1-1: hello"), (12.0, XID)])
    found = take(follow(monkeypatch, reader, 10.0))
    assert [sighting.at_s for sighting in found] == [12.0]
    assert "seek_realtime" in reader.sought


def test_without_a_time_only_new_entries_count(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ImitationReader([])
    take(follow(monkeypatch, reader, None))
    assert "seek_tail" in reader.sought
    assert reader.sought.index("fileno") < reader.sought.index("process")  # else new files are not noticed


def test_many_faults_come_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    log = follow(monkeypatch, ImitationReader([(float(second), XID) for second in range(1, 251)]), 0.0)
    assert [len(take(log)) for _batch in range(4)] == [BATCH_MAX, BATCH_MAX, 50, 0]


def test_unreadable_journal_is_unavailable_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(SourceUnavailable, match="the journal cannot be read: Permission denied"):
        take(follow(monkeypatch, SimpleNamespace(**{**vars(ImitationReader([])), "fileno": refuse}), None))


def put(directory: Path, number: int, message: str, **fields: str) -> None:
    """Write a journal file with one entry of this boot."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    values = {
        "__REALTIME_TIMESTAMP": str(time.time_ns() // 1000),
        "__MONOTONIC_TIMESTAMP": str(time.monotonic_ns() // 1000),
        "_BOOT_ID": boot,
        "_MACHINE_ID": Path("/etc/machine-id").read_text().strip(),
        **fields,
        "MESSAGE": message,
    }
    entry = "".join(f"{name}={value}\n" for name, value in values.items()) + "\n"
    assert JOURNAL_REMOTE
    command = [JOURNAL_REMOTE, "-o", str(directory / f"{number}.journal"), "-"]
    subprocess.run(command, input=entry.encode(), check=True, capture_output=True)


@pytest.fixture
def journal_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    journal = systemd_module("journal")
    if JOURNAL_REMOTE is None:
        skip_or_fail("systemd-journal-remote is not installed")

    class Reader(journal.Reader):  # type: ignore[misc,name-defined]
        def __init__(self, _flags: int) -> None:
            super().__init__(0, str(tmp_path))

    monkeypatch.setitem(sys.modules, "systemd", SimpleNamespace(journal=SimpleNamespace(Reader=Reader, SYSTEM_ONLY=4)))
    return tmp_path


def test_real_journal_is_followed_into_new_files(journal_directory: Path) -> None:
    kernel = {"_TRANSPORT": "kernel", "SYSLOG_IDENTIFIER": "kernel"}
    tool = {"_TRANSPORT": "syslog", "SYSLOG_IDENTIFIER": "nvsentinel-gpu-reset"}
    put(journal_directory, 0, XID, **kernel)
    log = KernelLog(None)
    log.open()
    assert take(log) == []
    put(journal_directory, 1, XID, **kernel)
    put(journal_directory, 2, RESET, **tool, _UID="0")
    put(journal_directory, 3, RESET, **tool, _UID="1000")  # anybody may log this
    found: list[Sighting] = []
    deadline = time.monotonic() + 20
    while len(found) < 2 and time.monotonic() < deadline:
        found += log.wait(0.05, threading.Event())
    found += take(log)
    log.close()
    assert [type(sighting) for sighting in found] == [Fault, Reset]
