"""The database as one thread at a time uses it: opened, written batch by batch, tidied, closed.

Owns the connection, the lock on the directory, and when what was erased leaves the files. Everything here blocks.
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
from queen_rbee.store.sqlite.failures import failure, in_words
from queen_rbee.store.sqlite.opening import NAME, connect, lock
from queen_rbee.store.sqlite.writing import Writer, begin

ERASED_WITHIN_S = 5.0
LOG_BYTES = 16 << 20
"""How old and how large the write-ahead log may become before it is emptied, even where there is no pause."""
PAGES_GIVEN_BACK = 4096
"""How many free pages the file system gets back at a time (4 MiB)."""

REMOVED = "Restart queen-rbee: what it holds in memory is then known, and what it had stored is lost with the file."
P = ParamSpec("P")
PROBLEMS = (sqlite3.Error, OSError, StoreFailure, ValueError, TypeError)
"""The last two are what a damaged row reads as."""


@dataclass(eq=False)
class Database:
    """An open database. `opened` is the number of this queen, `open_tasks` the number of each task she found.

    `marks` is the caller's: nothing here touches it while it is open.
    """

    file: Path
    connection: sqlite3.Connection
    marks: marks.Marks
    opened: int
    open_tasks: dict[UUID, int]
    resources: contextlib.ExitStack
    _written_at: float | None = field(default_factory=time.monotonic, init=False)
    """Since when the log holds something: a database that was just opened has counted its queen."""

    def __post_init__(self) -> None:
        self._log = self.file.with_name(f"{NAME}-wal")
        self._inodes = [(file, file.stat().st_ino) for file in (self.file, self._log)]
        self._writer = Writer(self.connection)

    def work(self, batch: Batch) -> StoreFailure | None:
        """Write `batch` and answer what is asked in it; the failure is that of the writing.

        A batch that repairs empties the log first: a disk that failed to flush may have dropped what it was to flush,
        and only what has gone through the database file is sure again.
        """
        failed = self.tidied() if batch.repairs else None
        if batch.writes and not failed:
            failed = self._attempt(self._write, batch)
        for read in batch.reads:
            read.failure = self._attempt(self._answer, read)
        return failed

    def tidied(self) -> StoreFailure | None:
        """Have what was erased leave the files."""
        return self._attempt(self._tidy)

    def close(self) -> StoreFailure | None:
        """Have what was erased leave the files, and let go of everything."""
        with self.resources:
            return self.tidied()

    def _attempt(self, deed: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> StoreFailure | None:
        try:
            self._look_after_files()
            deed(*args, **kwargs)
        except PROBLEMS as error:
            return in_words(error, self.file)
        return None

    def _write(self, batch: Batch) -> None:
        self._written_at = self._written_at or time.monotonic()
        self._writer.write(batch)

    def _answer(self, read: Read[Any]) -> None:
        read.answers.append(read.query(self.connection))

    def _look_after_files(self) -> None:
        """What is written to a file without a name would be lost at the end. Raises StoreFailure."""
        for file, inode in self._inodes:
            if not file.exists() or file.stat().st_ino != inode:
                raise failure("{file} was removed or replaced in use", REMOVED, file)

    @property
    def untidy(self) -> bool:
        """Whether something may be in the files that was erased."""
        return self._written_at is not None

    @property
    def tidying_due(self) -> bool:
        """Whether that has lasted too long."""
        if self._written_at is None:
            return False
        return time.monotonic() - self._written_at > ERASED_WITHIN_S or self._log_bytes() > LOG_BYTES

    def _log_bytes(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self._log.stat().st_size
        return 0

    def _tidy(self) -> None:
        """Empty the log into the database; give back some of its free pages. Raises sqlite3.Error."""
        (free,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        if free > PAGES_GIVEN_BACK:
            # a row without columns for each page: `execute` would stop after the first
            self.connection.executescript(f"PRAGMA incremental_vacuum({PAGES_GIVEN_BACK})")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._written_at = None


def open_database(directory: Path) -> Database:
    """The database in `directory`, which is made where there is none. Raises StoreFailure."""
    file, marks_file = directory / NAME, directory / marks.NAME
    with contextlib.ExitStack() as resources:
        try:
            lock_fd = lock(directory)
            resources.callback(os.close, lock_fd)
            connection = resources.enter_context(contextlib.closing(connect(directory, lock_fd)))
            found = marks.read(marks_file)
            open_tasks = queries.numbers(connection)
            opened = begin(connection)
            known = set(open_tasks.values())
            kept = resources.enter_context(
                contextlib.closing(marks.Marks(marks_file, [mark for mark in found if abs(mark) in known]))
            )
            return Database(file, connection, kept, opened, open_tasks, resources.pop_all())
        except PROBLEMS as error:
            raise in_words(error, file) from error
