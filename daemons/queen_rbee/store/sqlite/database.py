"""The database: opening, writing batches, cleaning up, closing. Everything here blocks; use one thread at a time.

Owns the connection and the lock on the directory, and decides when erased data is removed from the files.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec
from uuid import UUID

from queen_rbee.store.protocol import StoreFailure
from queen_rbee.store.sqlite import marks, queries
from queen_rbee.store.sqlite.batch import Batch, Read
from queen_rbee.store.sqlite.failures import failure, to_store_failure
from queen_rbee.store.sqlite.opening import NAME, connect, lock
from queen_rbee.store.sqlite.writing import Writer, count_start

LOG_MAX_AGE_S = 5.0
LOG_MAX_BYTES = 16 << 20
"""The maximum age and size of the write-ahead log. Beyond them it is emptied even under load."""
VACUUM_PAGES = 4096
"""How many free pages are returned to the file system at a time (4 MiB)."""

REMOVED_HINT = "Restart queen-rbee. The state that was in the file is lost."
P = ParamSpec("P")
ERRORS = (sqlite3.Error, OSError, StoreFailure, ValueError, TypeError)
"""The last two are raised for damaged rows."""


@dataclass(eq=False)
class Database:
    """An open database. `opened` counts the queen's starts; `open_tasks` are the tasks found, with their numbers.

    `marks` belongs to the caller: only `close` touches it here.
    """

    file: Path
    connection: sqlite3.Connection
    marks: marks.Marks
    opened: int
    open_tasks: dict[UUID, int]
    resources: contextlib.ExitStack
    _log_used_since: float | None = field(default_factory=time.monotonic, init=False)
    """When the log got its first entry. Opening the database writes to it."""

    def __post_init__(self) -> None:
        self._log = self.file.with_name(f"{NAME}-wal")
        self._inodes = [(file, file.stat().st_ino) for file in (self.file, self._log)]
        self._writer = Writer(self.connection)

    def work(self, batch: Batch) -> StoreFailure | None:
        """Write `batch`, then run its queries. Return the failure of the write, if any.

        A repairing batch empties the log first: after a failed flush the kernel may have dropped the data, so that only
        the database file can be trusted.
        """
        failed = self.clean_up() if batch.repairs else None
        if batch.writes and not failed:
            failed = self._attempt(self._write, batch)
        for read in batch.reads:
            read.failure = self._attempt(self._run_query, read)
        return failed

    def clean_up(self) -> StoreFailure | None:
        """Remove erased data from the files."""
        return self._attempt(self._empty_log)

    def close(self) -> StoreFailure | None:
        """Remove erased data from the files, and release all resources."""
        with self.resources:
            return self.clean_up()

    def _attempt(self, action: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> StoreFailure | None:
        try:
            self._check_files()
            action(*args, **kwargs)
        except ERRORS as error:
            return to_store_failure(error, self.file)
        return None

    def _write(self, batch: Batch) -> None:
        self._log_used_since = self._log_used_since or time.monotonic()
        self._writer.write(batch)

    def _run_query(self, read: Read[Any]) -> None:
        read.results.append(read.query(self.connection))

    def _check_files(self) -> None:
        """Raise StoreFailure if a file was removed or replaced: what is written to it would be lost."""
        for file, inode in self._inodes:
            if not file.exists() or file.stat().st_ino != inode:
                raise failure("{file} was removed or replaced while in use", REMOVED_HINT, file)

    @property
    def needs_clean_up(self) -> bool:
        """Whether erased data may still be in the files."""
        return self._log_used_since is not None

    @property
    def clean_up_due(self) -> bool:
        """Whether the log has exceeded its maximum age or size."""
        if self._log_used_since is None:
            return False
        return time.monotonic() - self._log_used_since > LOG_MAX_AGE_S or self._log_bytes() > LOG_MAX_BYTES

    def _log_bytes(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self._log.stat().st_size
        return 0

    def _empty_log(self) -> None:
        """Move the log into the database and return free pages to the file system. Raises sqlite3.Error."""
        (free,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        if free > VACUUM_PAGES:
            # the statement returns a row per page, and `execute` would stop after the first
            self.connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._log_used_since = None


def open_database(directory: Path) -> Database:
    """Open the database in `directory`; create it if it does not exist. Raises StoreFailure."""
    file, marks_file = directory / NAME, directory / marks.NAME
    with contextlib.ExitStack() as resources:
        try:
            lock_fd = lock(directory)
            resources.callback(os.close, lock_fd)
            connection = resources.enter_context(contextlib.closing(connect(directory, lock_fd)))
            old_marks = marks.read(marks_file)
            open_tasks = queries.task_numbers(connection)
            opened = count_start(connection)
            known = set(open_tasks.values())
            current_marks = resources.enter_context(
                contextlib.closing(marks.Marks(marks_file, [mark for mark in old_marks if abs(mark) in known]))
            )
            return Database(file, connection, current_marks, opened, open_tasks, resources.pop_all())
        except ERRORS as error:
            raise to_store_failure(error, file) from error
