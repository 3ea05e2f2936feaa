"""The second source of GPU faults: the kernel's messages in the journal, which also tell of GPUs without NVML events.

Needs read access to the system's journal: membership in the group systemd-journal.
"""

import threading
from datetime import datetime
from typing import Any

from pool_managerd.gpus.fault_source import BATCH_MAX, SourceUnavailable
from pool_managerd.gpus.faults import Sighting, sighting_of

NAME = "kernel"
RESET_TOOL = "nvsentinel-gpu-reset"
"""NVSentinel's tool logs `GPU reset executed` under this name after it has reset a GPU."""
ENTRIES_MAX = 10_000
"""Entries that are read at a time; a kernel that logs more is not followed entirely."""


class KernelLog:
    """Follows the journal from the Unix time `since_s` on; from now on if that is None.

    It looks every few seconds instead of waiting for changes: any daemon's log line would wake it.
    """

    name = NAME

    def __init__(self, since_s: float | None) -> None:
        self._since_s = since_s
        self._reader: Any = None

    def open(self) -> None:
        try:
            from systemd import journal
        except ImportError as error:
            raise SourceUnavailable("the Python module systemd is not installed") from error
        try:
            self._reader = journal.Reader(journal.SYSTEM_ONLY)
            self._reader.fileno()  # from now on process() notices new files, as after a rotation
            self._reader.this_boot()
            self._reader.add_match(_TRANSPORT="kernel")
            self._reader.add_disjunction()
            self._reader.this_boot()
            self._reader.add_match(SYSLOG_IDENTIFIER=RESET_TOOL, _UID="0")
            if self._since_s is None:
                self._reader.seek_tail()
                self._reader.get_previous()
            else:
                self._reader.seek_realtime(self._since_s)
        except OSError as error:
            raise SourceUnavailable(f"the journal cannot be read: {error.strerror or error}") from error

    def wait(self, limit_s: float, stopping: threading.Event) -> list[Sighting]:
        found: list[Sighting] = []
        try:
            self._reader.process()
            for _entry in range(ENTRIES_MAX):
                entry = self._reader.get_next()
                if not entry:
                    break
                at_s = _seconds(entry)
                if self._since_s is not None and at_s <= self._since_s:
                    continue
                self._since_s = at_s
                if sighting := sighting_of(str(entry.get("MESSAGE", "")), at_s):
                    found.append(sighting)
                if len(found) >= BATCH_MAX:
                    return found
        except OSError as error:
            raise SourceUnavailable(f"the journal cannot be read: {error.strerror or error}") from error
        if not found:
            stopping.wait(limit_s)
        return found

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _seconds(entry: dict[str, Any]) -> float:
    stamp = entry.get("__REALTIME_TIMESTAMP")
    return stamp.timestamp() if isinstance(stamp, datetime) else 0.0
