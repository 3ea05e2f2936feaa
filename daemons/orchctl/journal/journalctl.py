"""The journal of this machine, read by journalctl as a child process."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import trio

from llama_orch.service.exit import ExitStatus
from orchctl.child import end, open_child, output_of
from orchctl.errors import CommandError
from orchctl.journal.entries import FIELDS, Entry, parse_entry
from orchctl.nurseries import cancel_on_termination

JOURNALCTL = "journalctl"
MAX_ENTRIES = 10_000
"""Entries that one command prints, except with --follow."""
LINE_LIMIT = 1 << 20
PROBE_S = 30.0
"""How long journalctl may take to read the last entry."""
MATCH = re.compile(r"[A-Z_][A-Z0-9_]{0,63}=[^\0\n]{1,256}")
NO_PERMISSION = ("insufficient permissions", "not seeing messages from other users", "No journal files were opened")

Matches = Sequence[Sequence[str]]
"""Groups of FIELD=value: an entry matches if all of one group match it."""


@dataclass(frozen=True)
class Query:
    """What to read: the last `limit` entries that match, not older than `since`; with `follow`, also later ones."""

    matches: Matches
    since: datetime | None = None
    follow: bool = False
    limit: int = MAX_ENTRIES

    def argv(self) -> list[str]:
        """Return the command. Every value is a word of its own, and no word can be taken for an option.

        Raises ValueError for an invalid match.
        """
        groups: list[str] = []
        for group in self.matches:
            if not group or not all(MATCH.fullmatch(match) for match in group):
                raise ValueError(f"invalid match: {group}")
            groups += [*(["+"] if groups else []), *group]
        words = [JOURNALCTL, "--output=json", f"--output-fields={','.join(FIELDS)}", "--no-pager", "--quiet"]
        words += [f"--lines={self.limit}", *([f"--since=@{self.since.timestamp():.6f}"] if self.since else [])]
        return [*words, *(["--follow"] if self.follow else []), "--", *groups]


async def check_readable() -> None:
    """Raises CommandError if there is no journalctl, or this user may not read the journal of the system."""
    probe = await output_of(JOURNALCTL, "--system", "--lines=1", "--output=cat", "--no-pager", limit_s=PROBE_S)
    if probe.status is None:
        hint = "On a machine without systemd, the daemons log to standard error."
        raise CommandError(f"the journal cannot be read: {probe.problem}", hint, ExitStatus.UNAVAILABLE)
    if any(words in probe.err for words in NO_PERMISSION):
        hint = (
            "Root and members of the groups systemd-journal and adm may: use sudo, or run usermod -aG systemd-journal "
            "$USER as root and log in again."
        )
        raise CommandError("no permission to read the journal", hint, ExitStatus.NO_PERMISSION)


async def read(query: Query) -> list[Entry]:
    """Return the entries, oldest first. Raises CommandError."""
    found = []
    async with entries(query) as each:
        async for entry in each:
            found.append(entry)
            if len(found) >= query.limit:
                break
    return found


@asynccontextmanager
async def entries(query: Query) -> AsyncIterator[AsyncGenerator[Entry, None]]:
    """Yield an iterator over the entries as journalctl prints them; it kills journalctl when the block ends.

    The iterator raises CommandError if journalctl fails.
    """
    try:
        process = await open_child(query.argv())
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot run {JOURNALCTL}: {error}", "", ExitStatus.UNAVAILABLE) from error
    try:
        async with cancel_on_termination(), aclosing(_entries(process)) as found:
            yield found
    finally:
        await end(process)


async def _entries(process: trio.Process) -> AsyncGenerator[Entry, None]:
    assert process.stdout
    assert process.stderr
    partial = b""
    while chunk := await process.stdout.receive_some(65536):
        *lines, partial = (partial + chunk).split(b"\n")
        if len(partial) > LINE_LIMIT:
            partial = b""
        for line in lines:
            if entry := parse_entry(line.decode(errors="replace")):
                yield entry
    if await process.wait() not in (0, None):
        words = bytes(await process.stderr.receive_some(4096)).decode(errors="replace").strip()
        message = words.splitlines()[0] if words else f"{JOURNALCTL} failed with status {process.returncode}"
        raise CommandError(message, "", ExitStatus.DATA)
