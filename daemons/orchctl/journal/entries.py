"""Entries of the journal, parsed from the JSON of journalctl, and their text. Pure functions."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from orchctl.tables import one_line

FIELDS = (
    *("MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "_COMM", "_SYSTEMD_UNIT", "_HOSTNAME", "LLORCH_EVENT"),
    *("CORRELATION_ID", "JOB_ID", "POOL_ID", "NODE_ID", "REPLICA_ID", "TARGET"),
)
"""The fields that journalctl is asked for."""
LEVELS = ("emerg", "alert", "crit", "error", "warning", "notice", "info", "debug")
TOO_LONG = "(a message of more than 4096 bytes; journalctl --all shows it)"
TEXT_LIMIT = 4096


@dataclass(frozen=True)
class Entry:
    """One entry. `fields` has the fields that llama-orch's daemons add, by name."""

    at: datetime
    daemon: str
    level: str
    message: str
    event: str = ""
    fields: tuple[tuple[str, str], ...] = ()

    def document(self) -> dict[str, JsonValue]:
        """Return the entry for --json."""
        fields: dict[str, JsonValue] = {name.lower(): value for name, value in self.fields}
        head: dict[str, JsonValue] = {"at": self.at.isoformat(timespec="microseconds"), "daemon": self.daemon}
        return {**head, "level": self.level, "event": self.event or None, "message": self.message, **fields}

    def line(self) -> str:
        """Return the entry as a line: local time, daemon, level unless it is info, message."""
        level = "" if self.level in ("info", "debug", "notice") else f"{self.level}: "
        return f"{local_time(self.at)} {self.daemon}: {level}{one_line(self.message)}"


def local_time(at: datetime) -> str:
    """Format in this machine's time zone, in milliseconds, as in 2026-11-30 20:31:07.123."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def parse_entry(line: str) -> Entry | None:
    """Return the entry of a line of `journalctl --output=json`; None if it is not one."""
    try:
        found = json.loads(line)
        at = datetime.fromtimestamp(int(found["__REALTIME_TIMESTAMP"]) / 1e6, UTC)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    fields = {name: _text(found[name]) for name in FIELDS if name in found}
    number = fields.get("PRIORITY", "6")
    own = tuple((name, fields[name]) for name in FIELDS[7:] if fields.get(name))
    return Entry(
        at,
        fields.get("SYSLOG_IDENTIFIER") or fields.get("_COMM") or "-",
        LEVELS[int(number)] if number in set("01234567") else "info",
        fields.get("MESSAGE", ""),
        fields.get("LLORCH_EVENT", ""),
        own,
    )


def _text(value: object) -> str:
    """Return a field: text, a list of bytes if it has control characters, null if it is long, a list if repeated."""
    if value is None:
        return TOO_LONG
    if isinstance(value, list) and value and all(isinstance(part, int) for part in value):
        return bytes(part & 255 for part in value).decode(errors="replace")[:TEXT_LIMIT]
    if isinstance(value, list):
        return _text(value[0]) if value else ""
    return str(value)[:TEXT_LIMIT]
