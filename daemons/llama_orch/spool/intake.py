"""One reader's memory of a handoff directory: each file is taken once, each bad one is reported once.

Owns that memory and the moving aside; the disk work runs in a thread. Two readers may share a directory; each has
an `Intake` of its own, and whoever comes second finds nothing.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

from llama_orch.spool.judging import Bad, Found, scan
from llama_orch.spool.reading import SpoolUnreadable, trusted_owners
from llama_orch.spool.removal import Rejection, delete, reject
from llama_orch.spool.stored import Identity, printable
from llama_orch.telemetry.events import HANDOFF_KEPT, HANDOFF_REJECTED, SPOOL_UNREADABLE
from llama_orch.telemetry.records import emit


@dataclass(frozen=True)
class News:
    """What one look brought: announcements not taken before, oldest first, and bad files not reported before."""

    found: tuple[Found, ...] = ()
    bad: tuple[Bad, ...] = ()


class Intake:
    """Looks at `directory` and hands out what is new in it.

    With `moves_bad` bad files are reported and go to `rejected/`; a reader that only looks on leaves both to the
    other. `taken` are files that were taken before this process began.
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
        """Why the directory cannot be read, as of the last look."""

    async def look(self) -> News:
        """What is new since the last look. An unreadable directory is logged once and brings nothing."""
        read = partial(scan, self._directory, owners=self._owners(), now_s=time.time())
        try:
            items = await trio.to_thread.run_sync(read)
        except SpoolUnreadable as error:
            self._complain(str(error))
            return News()
        self.trouble = None
        fresh = [item for item in items if item.identity not in self._known]
        self._known = frozenset(item.identity for item in items)
        found = sorted((item for item in fresh if isinstance(item, Found)), key=lambda item: item.identity.mtime_ns)
        bad = tuple(item for item in fresh if isinstance(item, Bad))
        if self._moves_bad:
            for item in bad:
                await self._set_aside(item)
        return News(tuple(found), bad)

    async def delete(self, found: Found) -> None:
        """Remove a taken file; if that is not allowed it stays, is not taken again, and the log says so once."""
        try:
            await trio.to_thread.run_sync(delete, self._directory, found)
        except (OSError, SpoolUnreadable) as error:
            emit(HANDOFF_KEPT, file=printable(found.identity.name), directory=self._directory, reason=error)

    async def _set_aside(self, bad: Bad) -> None:
        move = partial(reject, self._directory, bad, datetime.now(UTC))
        try:
            done = await trio.to_thread.run_sync(move)
        except SpoolUnreadable as error:
            done = Rejection(problem=str(error))
        if done.moved_to or done.problem:  # neither: another reader was first, and has reported it
            where = done.moved_to or f"nowhere: {done.problem}"
            emit(HANDOFF_REJECTED, file=printable(bad.name), reason=bad.reason, moved_to=where)

    def _complain(self, trouble: str) -> None:
        if trouble != self.trouble:
            emit(SPOOL_UNREADABLE, reason=trouble)
        self.trouble = trouble
