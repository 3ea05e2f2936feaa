"""What waits to be stored: a batch becomes one transaction, and everyone who waits for it wakes with its outcome.

Plain tuples, since a batch is filled at the rate at which tasks are accepted.
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
    """A row of the table `task`. Raises ValueError for text that is not Unicode: one bad row would fail the batch."""
    (task.correlation_id + (task.traceparent or "")).encode()
    ids = task.task_id.bytes, task.job_id.bytes
    return number, *ids, task.submitted, task.correlation_id, task.traceparent, task.request.encode()


def document_row(document: Document) -> DocumentRow:
    """A row of a table of documents, but for its number. Raises ValueError as `task_row` does."""
    (document.key + document.tag + document.body).encode()
    return document.key, document.tag, document.stored, document.body


@dataclass(eq=False)
class Removal:
    """A document that is to go; `found` is whether it was there, once the batch is done."""

    key: str
    found: bool = False


@dataclass(eq=False)
class Read(Generic[T]):
    """A question that is asked once the batch is written: then there is one answer, or why there is none."""

    query: Callable[[sqlite3.Connection], T]
    answers: list[T] = field(default_factory=list)
    failure: StoreFailure | None = None


@dataclass(eq=False)
class Batch:
    """Operations that take effect together: tasks go, then tasks come, then each kind's documents in their order.

    `later` are those of `documents` that nobody waits for; `awaited` is whether somebody waits for anything here,
    `durable` whether it must survive a power cut, `repairs` whether it is the first after a failure.
    """

    gone: list[int] = field(default_factory=list)
    tasks: dict[int, TaskRow] = field(default_factory=dict)
    documents: dict[Kind, list[DocumentRow | Removal]] = field(default_factory=dict)
    later: dict[Kind, list[DocumentRow]] = field(default_factory=dict)
    reads: list[Read[Any]] = field(default_factory=list)
    ping: bool = False
    awaited: bool = False
    durable: bool = False
    repairs: bool = False
    done: trio.Event = field(default_factory=trio.Event)
    failure: StoreFailure | None = None

    @property
    def writes(self) -> bool:
        """Whether there is anything to write. A repair is proved by a write."""
        return bool(self.tasks or self.gone or self.documents or self.ping or self.repairs)

    def __bool__(self) -> bool:
        return self.awaited or self.writes

    def change(self, kind: Kind, change: DocumentRow | Removal) -> None:
        """Add a change to a document."""
        self.documents.setdefault(kind, []).append(change)

    def settle(self, failure: StoreFailure | None) -> None:
        """Wake everyone who waits. Only the first outcome counts."""
        if not self.done.is_set():
            self.failure = failure
            self.done.set()

    def takes_over(self, failed: "Batch", kept: int) -> int:
        """What nobody waits for in a batch that `failed` is tried again with this one, before what is here.

        At most `kept` documents wait so; the number of those that are given up is returned.
        """
        self.gone[:0] = failed.gone
        for kind, rows in failed.later.items():
            self.documents[kind] = [*rows, *self.documents.get(kind, ())]
            self.later[kind] = [*rows, *self.later.get(kind, ())]
        return self._give_up(kept)

    def _give_up(self, kept: int) -> int:
        lost = 0
        for kind, rows in self.later.items():
            for row in rows[: max(0, len(rows) - kept)]:
                self.documents[kind].remove(row)
                lost += 1
            del rows[:-kept]
        return lost
