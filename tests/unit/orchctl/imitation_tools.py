"""Imitations of system programs on a PATH of their own, which record their arguments."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ENTRY = {
    "__REALTIME_TIMESTAMP": "1796000000123456",
    "MESSAGE": "task 1 done on pool default",
    "PRIORITY": "6",
    "SYSLOG_IDENTIFIER": "queen-rbee",
    "LLORCH_EVENT": "task_ended",
    "CORRELATION_ID": "corr-1",
}


@dataclass(frozen=True)
class Tools:
    """A directory for PATH. Without a program in it, that program is missing."""

    directory: Path

    @property
    def path(self) -> str:
        return str(self.directory)

    def add(self, name: str, out: str = "", err: str = "", status: int = 0, more: str = "") -> None:
        """Add a program that records its arguments, prints `out` and `err`, runs the shell text `more`, and exits."""
        (self.directory / f"{name}.out").write_text(out)
        (self.directory / f"{name}.err").write_text(err)
        script = self.directory / name
        script.write_text(
            f"#!/bin/sh\nPATH=/usr/bin:/bin\nhere={self.directory}\n"
            f'for word; do printf "%s\\0" "$word"; done >>$here/{name}.calls\nprintf "\\n" >>$here/{name}.calls\n'
            f"cat $here/{name}.out\ncat $here/{name}.err >&2\n{more}\nexit {status}\n"
        )
        script.chmod(0o755)

    def calls(self, name: str) -> list[list[str]]:
        """Return the arguments of each call."""
        file = self.directory / f"{name}.calls"
        lines = file.read_bytes().split(b"\0\n") if file.exists() else []
        return [line.decode().split("\0") for line in lines if line]


def journal_lines(*entries: Mapping[str, object]) -> str:
    """Return entries, each ENTRY with changes, as journalctl prints them. A field that is None is left out."""
    changed = ({**ENTRY, **entry} for entry in entries)
    return "".join(
        json.dumps({name: value for name, value in entry.items() if value is not None}) + "\n" for entry in changed
    )
