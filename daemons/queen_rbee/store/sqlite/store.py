"""The queen's store in SQLite. It turns the calls of the protocol into batches for the loop that writes.

Owns the set of open tasks and their numbers. The state of a task is in two places: what must survive a power failure is
in the database, what must be recorded within microseconds is in `marks`.
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
from queen_rbee.store.sqlite.failures import to_store_failure
from queen_rbee.store.sqlite.loop import BatchLoop, copy_failure
from queen_rbee.store.sqlite.queries import QUEEN_SHIFT

T = TypeVar("T")


class SqliteStore:
    """Implements `queen_rbee.store.protocol.Store`. Created by `open_store`, which runs the loop that it needs."""

    def __init__(self, database: Database, loop: BatchLoop) -> None:
        self._database = database
        self._loop = loop
        self._marks = database.marks
        self._open_tasks = database.open_tasks
        self._next_number = database.opened << QUEEN_SHIFT
        self._marks_failing = False

    async def accept(self, task: StoredTask) -> None:
        self._loop.check_writable()
        if task.task_id in self._open_tasks:
            raise ValueError(f"task {task.task_id} is already open")
        number = self._next_number
        row = task_row(number, task)
        self._next_number += 1
        self._open_tasks[task.task_id] = number
        self._loop.pending.tasks[number] = row
        try:
            await self._durable()
        except BaseException:
            # the caller does not treat it as accepted, so it must not exist after a restart
            if self._open_tasks.get(task.task_id) == number:
                self.mark_ended(task.task_id)
            raise

    def mark_delivered(self, task_id: UUID) -> None:
        number = self._open_tasks.get(task_id)
        if number is not None:
            self._mark(self._marks.mark_delivered, number)

    def mark_ended(self, task_id: UUID) -> None:
        number = self._open_tasks.pop(task_id, None)
        if number is None:
            return
        self._loop.pending.tasks.pop(number, None)
        self._loop.pending.erased.append(number)
        self._mark(self._marks.mark_ended, number)
        self._loop.notify()

    def _mark(self, mark: Callable[[int], None], number: int) -> None:
        if self._loop.closed:
            return
        try:
            mark(number)
        except OSError as error:
            failed = to_store_failure(error, self._marks.path)
            if not self._marks_failing:
                emit(events.STORE_FAILING, problem=failed, hint=failed.hint)
            self._marks_failing = True
        else:
            self._marks_failing = False

    async def put(self, kind: Kind, document: Document) -> None:
        await self._change(kind, document_row(document))

    def put_later(self, kind: Kind, document: Document) -> None:
        row = document_row(document)
        self._loop.pending.change(kind, row)
        self._loop.pending.unawaited.setdefault(kind, []).append(row)
        self._loop.notify()

    async def remove(self, kind: Kind, key: str) -> bool:
        removal = Removal(key)
        await self._change(kind, removal)
        return removal.found

    async def _change(self, kind: Kind, change: DocumentRow | Removal) -> None:
        self._loop.check_writable()
        self._loop.pending.change(kind, change)
        await self._durable()

    async def get(self, kind: Kind, key: str) -> Document | None:
        return await self._read(partial(queries.get, kind=kind, key=key))

    async def list_documents(
        self, kind: Kind, *, tag: str | None = None, before: str | None = None, limit: int = 1_000_000
    ) -> Sequence[Document]:
        return await self._read(partial(queries.listed, kind=kind, tag=tag, before=before, limit=limit))

    async def open_tasks(self) -> Sequence[StoredTask]:
        found = await self._read(partial(queries.tasks, opened=self._database.opened))
        return [
            replace(task, delivered=self._marks.is_delivered(number), ended=self._marks.is_ended(number))
            for number, task in found
            if self._open_tasks.get(task.task_id) == number
        ]

    async def ping(self) -> None:
        self._loop.check_writable()
        self._loop.pending.ping = True
        await self._durable()

    async def _durable(self) -> None:
        """Wait until the pending batch is durable. Raises StoreFailure."""
        batch = self._loop.pending
        batch.durable = True
        await self._loop.wait_written(batch)
        if batch.failure:
            raise copy_failure(batch.failure)

    async def _read(self, query: Callable[[Connection], T]) -> T:
        """Return the result of `query`, which runs even if writes fail. Raises StoreFailure."""
        if self._loop.closed:
            self._loop.check_writable()
        batch, read = self._loop.pending, Read(query)
        batch.reads.append(read)
        await self._loop.wait_written(batch)
        for result in read.results:
            return result
        raise copy_failure(read.failure or batch.failure or StoreFailure("the query returned nothing"))


@asynccontextmanager
async def open_store(directory: Path, pulse: Pulse | None = None) -> AsyncIterator[SqliteStore]:
    """Open the store in `directory` for the duration of the context. Raises StoreFailure.

    On exit, pending operations are written and erased prompts are removed from the files.
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
        # the nursery is an implementation detail: exceptions of the caller pass through unchanged
        raise group.exceptions[0] from None
