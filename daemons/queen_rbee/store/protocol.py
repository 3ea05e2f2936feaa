"""The interface of the queen's store: accepted tasks until they end, and small documents of five kinds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode

Kind = Literal["session", "model", "artifact", "node", "record"]
"""A `record` is the view of an ended task; its key is the task id."""

KINDS: tuple[Kind, ...] = ("session", "model", "artifact", "node", "record")

BOUNDS: dict[Kind, int] = {"record": 10_000, "artifact": 100_000}
"""The maximum number of documents of a kind; the oldest are removed first. A store may keep up to 1 % fewer."""


class StoreFailure(Exception):
    """A read or write failed. The message says what and where, `hint` how to correct it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class StoredTask:
    """An accepted task that has not ended.

    `request` is the TaskRequest as JSON, including the prompt. `submitted` is in seconds since the epoch. `accept`
    ignores the last three fields: `generation` is the number of queen starts since the task was accepted, `delivered`
    is whether a token was delivered to a client, and `ended` is whether the task had ended before the queen was killed,
    without its outcome being stored.
    """

    task_id: UUID
    job_id: UUID
    request: str
    correlation_id: str
    submitted: float
    traceparent: str | None = None
    generation: int = 0
    delivered: bool = False
    ended: bool = False


@dataclass(frozen=True)
class Document:
    """A small JSON document.

    `tag` filters listings (the kind of an artifact). `stored` is a time of the caller's, in seconds since the epoch;
    listings are not sorted by it.
    """

    key: str
    body: str
    tag: str = ""
    stored: float = 0.0


class DurableTasks(Protocol):
    """Accepted tasks until they end. Operations take effect in the order of their calls."""

    async def accept(self, task: StoredTask) -> None:
        """Store the task. On return it survives a crash and a power failure.

        If the call fails or is cancelled, the task is forgotten. `mark_delivered` and `mark_ended` may be called before
        it returns. Raises StoreFailure, and ValueError if a task with this id is open.
        """
        ...

    def mark_delivered(self, task_id: UUID) -> None:
        """Record that a token is about to be delivered, so that it is known after the queen is killed.

        Takes microseconds: it does not wait for the disk, and a power failure may undo it. Failures are logged. Does
        nothing if the task is not open.
        """
        ...

    def mark_ended(self, task_id: UUID) -> None:
        """Record that the task has ended, so that it is known after the queen is killed.

        The task and its prompt are erased within seconds. Cost and failures are those of `mark_delivered`.
        """
        ...

    async def open_tasks(self) -> Sequence[StoredTask]:
        """Return the tasks that have not ended, in the order of admission. Raises StoreFailure.

        `generation` is incremented durably when the store is opened, so that nothing issued under one generation is
        issued again.
        """
        ...


class Store(DurableTasks, Protocol):
    """A store. One loop does all writing; callers wait for what they need to be durable.

    Operations take effect in the order of their calls. Text that cannot be encoded (lone surrogates) raises ValueError.
    An operation that raises StoreFailure has stored nothing, with one exception: if the disk did not answer in time,
    its document may have been stored. The same uncertainty applies to a cancelled caller.
    """

    async def put(self, kind: Kind, document: Document) -> None:
        """Store or replace a document. Durable on return. Raises StoreFailure."""
        ...

    def put_later(self, kind: Kind, document: Document) -> None:
        """Store or replace a document within a fraction of a second. Failures are logged."""
        ...

    async def remove(self, kind: Kind, key: str) -> bool:
        """Remove a document; return whether it existed. Durable on return. Raises StoreFailure."""
        ...

    async def get(self, kind: Kind, key: str) -> Document | None:
        """Return a document, including one that `put_later` has not written yet. Raises StoreFailure."""
        ...

    async def list_documents(
        self, kind: Kind, *, tag: str | None = None, before: str | None = None, limit: int = 1_000_000
    ) -> Sequence[Document]:
        """Return documents, the last stored or replaced first, after the one with the key `before`.

        Returns nothing if there is no document with that key. Raises StoreFailure.
        """
        ...

    async def ping(self) -> None:
        """Return when a small write is durable. Raises StoreFailure."""
        ...


def not_stored(error: StoreFailure) -> ApiError:
    """Return the 503 error for a request whose state could not be read or written. Nothing was partially stored."""
    hint = error.hint or "See journalctl -u queen-rbee. Send the request again after the problem is corrected."
    return ApiError(503, ErrorBody(code=ErrorCode.INTERNAL, message=str(error), hint=hint, retriable=True))
