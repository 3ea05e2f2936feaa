"""The queen's store in SQLite: what the protocol promises, turned into batches for the one loop that writes.

Owns which tasks are open, and the numbers that they are stored under. A task's own state lies in two places: what must
survive a power cut in the database, what must be known in microseconds in `marks`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar
from uuid import UUID

import trio

from llama_orch.service.watchdog import UNWATCHED_INTERVAL_S, Pulse
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.store.protocol import Document, Kind, StoredTask, StoreFailure
from queen_rbee.store.sqlite import queries
from queen_rbee.store.sqlite.batch import DocumentRow, Read, Removal, document_row, task_row
from queen_rbee.store.sqlite.database import Database, open_database
from queen_rbee.store.sqlite.failures import in_words
from queen_rbee.store.sqlite.loop import BatchLoop, again
from queen_rbee.store.sqlite.queries import QUEEN_SHIFT

T = TypeVar("T")


class SqliteStore:
    """`queen_rbee.store.protocol.Store` over an open database; `open_store` runs what it needs."""

    def __init__(self, database: Database, loop: BatchLoop) -> None:
        self._database = database
        self._loop = loop
        self._marks = database.marks
        self._open = database.open_tasks
        self._next = database.opened << QUEEN_SHIFT
        self._marks_fail = False

    async def accept(self, task: StoredTask) -> None:
        """Return when `task` survives a crash and a power cut. Raises StoreFailure, ValueError."""
        self._loop.refuse()
        if task.task_id in self._open:
            raise ValueError(f"task {task.task_id} is open already")
        number = self._next
        row = task_row(number, task)
        self._next += 1
        self._open[task.task_id] = number
        self._loop.pending.tasks[number] = row
        try:
            await self._durable()
        except BaseException:
            # its caller does not know it as accepted: so it must not be there after a restart
            if self._open.get(task.task_id) == number:
                self.ended(task.task_id)
            raise

    def delivered(self, task_id: UUID) -> None:
        """A token of the task is about to be shown: from now on a killed queen knows."""
        number = self._open.get(task_id)
        if number is not None:
            self._mark(self._marks.delivered, number)

    def ended(self, task_id: UUID) -> None:
        """The task has ended: a killed queen knows from now on, and it is erased soon."""
        number = self._open.pop(task_id, None)
        if number is None:
            return
        self._loop.pending.tasks.pop(number, None)
        self._loop.pending.gone.append(number)
        self._mark(self._marks.ended, number)
        self._loop.stir()

    def _mark(self, mark: Callable[[int], None], number: int) -> None:
        if self._loop.closed:
            return
        try:
            mark(number)
        except OSError as error:
            failed = in_words(error, self._marks.path)
            if not self._marks_fail:
                emit(events.STORE_FAILING, problem=failed, hint=failed.hint)
            self._marks_fail = True
        else:
            self._marks_fail = False

    async def put(self, kind: Kind, document: Document) -> None:
        """Store or replace a document; durable on return. Raises StoreFailure, ValueError."""
        await self._changed(kind, document_row(document))

    def put_later(self, kind: Kind, document: Document) -> None:
        """Store or replace a document, soon. Raises ValueError."""
        row = document_row(document)
        self._loop.pending.change(kind, row)
        self._loop.pending.later.setdefault(kind, []).append(row)
        self._loop.stir()

    async def remove(self, kind: Kind, key: str) -> bool:
        """Remove a document; whether it was there. Durable on return. Raises StoreFailure."""
        removal = Removal(key)
        await self._changed(kind, removal)
        return removal.found

    async def _changed(self, kind: Kind, change: DocumentRow | Removal) -> None:
        self._loop.refuse()
        self._loop.pending.change(kind, change)
        await self._durable()

    async def get(self, kind: Kind, key: str) -> Document | None:
        """One document. Raises StoreFailure."""
        return await self._read(partial(queries.get, kind=kind, key=key))

    async def listed(
        self, kind: Kind, *, tag: str | None = None, before: str | None = None, limit: int = 1_000_000
    ) -> Sequence[Document]:
        """Documents, those stored or replaced last first. Raises StoreFailure."""
        return await self._read(partial(queries.listed, kind=kind, tag=tag, before=before, limit=limit))

    async def open_tasks(self) -> Sequence[StoredTask]:
        """The tasks that have not ended, in the order of their admission. Raises StoreFailure."""
        found = await self._read(partial(queries.tasks, opened=self._database.opened))
        return [
            replace(task, delivered=self._marks.shown(number), ended=self._marks.gone(number))
            for number, task in found
            if self._open.get(task.task_id) == number
        ]

    async def ping(self) -> None:
        """Return when a small write has become durable. Raises StoreFailure."""
        self._loop.refuse()
        self._loop.pending.ping = True
        await self._durable()

    async def _durable(self) -> None:
        """Wait for what was just added. Raises StoreFailure."""
        batch = self._loop.pending
        batch.durable = True
        await self._loop.settled(batch)
        if batch.failure:
            raise again(batch.failure)

    async def _read(self, query: Callable[[Connection], T]) -> T:
        """The answer to `query`. Asked even where nothing can be written. Raises StoreFailure."""
        if self._loop.closed:
            self._loop.refuse()
        batch, read = self._loop.pending, Read(query)
        batch.reads.append(read)
        await self._loop.settled(batch)
        for answer in read.answers:
            return answer
        raise again(read.failure or batch.failure or StoreFailure("nothing was read"))


@asynccontextmanager
async def open_store(directory: Path, pulse: Pulse | None = None) -> AsyncIterator[SqliteStore]:
    """The store in `directory`, for as long as the context lasts. Raises StoreFailure where it cannot be had.

    On leaving, what is pending is written and prompts that were erased are gone from the files.
    """
    database = await trio.to_thread.run_sync(open_database, directory)
    loop = BatchLoop(database)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.run, pulse or Pulse("store", UNWATCHED_INTERVAL_S))
            yield SqliteStore(database, loop)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        # the nursery is no business of whoever uses the store: their own exceptions pass through as they are
        raise group.exceptions[0] from None
