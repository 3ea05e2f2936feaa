"""A batch of pending operations. It becomes one transaction, and all callers that wait for it get its outcome.

Rows are plain tuples, because batches are filled at the rate at which tasks are accepted.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import trio

from queen_rbee.store.protocol import Document, Kind, StoredTask, StoreFailure

T = TypeVar("T")

TaskRow = tuple[int, bytes, bytes, float, str, str | None, bytes]
DocumentRow = tuple[str, str, float, str]


def task_row(number: int, task: StoredTask) -> TaskRow:
    """Return a row of the table `task`.

    Raises ValueError for text that cannot be encoded, because one such row would fail the whole batch.
    """
    (task.correlation_id + (task.traceparent or "")).encode()
    ids = task.task_id.bytes, task.job_id.bytes
    return number, *ids, task.submitted, task.correlation_id, task.traceparent, task.request.encode()


def document_row(document: Document) -> DocumentRow:
    """Return a row of a document table, without its number. Raises ValueError as `task_row` does."""
    (document.key + document.tag + document.body).encode()
    return document.key, document.tag, document.stored, document.body


@dataclass(eq=False)
class Removal:
    """The removal of a document. `found` is set by the write: whether the document existed."""

    key: str
    found: bool = False


@dataclass(eq=False)
class Read(Generic[T]):
    """A query that runs after the batch is written. It sets either one result or the failure."""

    query: Callable[[sqlite3.Connection], T]
    results: list[T] = field(default_factory=list)
    failure: StoreFailure | None = None


@dataclass(eq=False)
class Batch:
    """Operations that take effect together: tasks are erased, tasks are added, then documents change in their order.

    `unawaited` are the rows of `documents` that no caller waits for. `callers` is the number of callers that wait for
    anything in the batch, `durable` whether it must survive a power failure, `repairs` whether it is the first after a
    failure.
    """

    erased: list[int] = field(default_factory=list)
    tasks: dict[int, TaskRow] = field(default_factory=dict)
    documents: dict[Kind, list[DocumentRow | Removal]] = field(default_factory=dict)
    unawaited: dict[Kind, list[DocumentRow]] = field(default_factory=dict)
    reads: list[Read[Any]] = field(default_factory=list)
    ping: bool = False
    callers: int = 0
    durable: bool = False
    repairs: bool = False
    done: trio.Event = field(default_factory=trio.Event)
    failure: StoreFailure | None = None

    @property
    def writes(self) -> bool:
        """Whether there is anything to write. A repair always writes, to prove that the disk works again."""
        return bool(self.tasks or self.erased or self.documents or self.ping or self.repairs)

    def __bool__(self) -> bool:
        return self.callers > 0 or self.writes

    def change(self, kind: Kind, change: DocumentRow | Removal) -> None:
        self.documents.setdefault(kind, []).append(change)

    def settle(self, failure: StoreFailure | None) -> None:
        """Set the outcome and wake all waiting callers. Later outcomes are ignored."""
        if not self.done.is_set():
            self.failure = failure
            self.done.set()

    def take_over(self, failed: "Batch", limit: int) -> int:
        """Retry the unawaited operations of a failed batch with this one, before its own.

        At most `limit` documents of a kind are kept, the latest. Return the number of dropped documents.
        """
        self.erased[:0] = failed.erased
        for kind, rows in failed.unawaited.items():
            self.documents[kind] = [*rows, *self.documents.get(kind, ())]
            self.unawaited[kind] = [*rows, *self.unawaited.get(kind, ())]
        return self._drop_oldest(limit)

    def _drop_oldest(self, limit: int) -> int:
        dropped = 0
        for kind, rows in self.unawaited.items():
            for row in rows[: max(0, len(rows) - limit)]:
                self.documents[kind].remove(row)
                dropped += 1
            del rows[:-limit]
        return dropped
