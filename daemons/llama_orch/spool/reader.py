"""Reader of a handoff directory: returns each file once and reports each bad file once.

Owns the record of known files, and moves bad ones aside. Disk I/O runs in a thread. Two readers may share a directory;
each has its own `SpoolReader`, and only the first one reports a bad file.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

from llama_orch.spool.files import SpoolUnreadable, trusted_owners
from llama_orch.spool.handoffs import BadFile, HandoffFile, scan
from llama_orch.spool.identity import Identity, printable
from llama_orch.spool.removal import Rejection, delete, reject
from llama_orch.telemetry.events.pools import HANDOFF_KEPT, HANDOFF_REJECTED, SPOOL_UNREADABLE
from llama_orch.telemetry.records import emit


@dataclass(frozen=True)
class NewFiles:
    """The result of one scan: new announcements, oldest first, and new bad files."""

    found: tuple[HandoffFile, ...] = ()
    bad: tuple[BadFile, ...] = ()


class SpoolReader:
    """Scans `directory` and returns the new files in it.

    With `moves_bad` it reports bad files and moves them to `rejected/`; a second reader leaves both to the first.
    `taken` are files that an earlier process has already taken.
    """

    def __init__(
        self,
        directory: Path,
        *,
        moves_bad: bool,
        taken: Iterable[Identity] = (),
        owners: Callable[[], frozenset[int]] = trusted_owners,
    ) -> None:
        self._directory = directory
        self._moves_bad = moves_bad
        self._known = frozenset(taken)
        self._owners = owners
        self.trouble: str | None = None
        """Why the last scan could not read the directory, or None."""

    async def look(self) -> NewFiles:
        """Return what is new since the last scan. An unreadable directory is logged once and counts as empty."""
        read = partial(scan, self._directory, owners=self._owners(), now_s=time.time())
        try:
            items = await trio.to_thread.run_sync(read)
        except SpoolUnreadable as error:
            self._report_unreadable(str(error))
            return NewFiles()
        self.trouble = None
        fresh = [item for item in items if item.identity not in self._known]
        self._known = frozenset(item.identity for item in items)
        handoffs = (item for item in fresh if isinstance(item, HandoffFile))
        found = sorted(handoffs, key=lambda item: item.identity.mtime_ns)
        bad = tuple(item for item in fresh if isinstance(item, BadFile))
        if self._moves_bad:
            for item in bad:
                await self._set_aside(item)
        return NewFiles(tuple(found), bad)

    async def delete(self, found: HandoffFile) -> None:
        """Remove a taken file. If that fails, log it once; the file is not taken again."""
        try:
            await trio.to_thread.run_sync(delete, self._directory, found)
        except (OSError, SpoolUnreadable) as error:
            emit(HANDOFF_KEPT, file=printable(found.identity.name), directory=self._directory, reason=error)

    async def _set_aside(self, bad: BadFile) -> None:
        move = partial(reject, self._directory, bad, datetime.now(UTC))
        try:
            done = await trio.to_thread.run_sync(move)
        except SpoolUnreadable as error:
            done = Rejection(problem=str(error))
        if done.moved_to or done.problem:  # neither: the other reader has moved and reported it
            where = done.moved_to or f"nowhere: {done.problem}"
            emit(HANDOFF_REJECTED, file=printable(bad.name), reason=bad.reason, moved_to=where)

    def _report_unreadable(self, trouble: str) -> None:
        if trouble != self.trouble:
            emit(SPOOL_UNREADABLE, reason=trouble)
        self.trouble = trouble
