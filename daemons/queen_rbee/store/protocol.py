"""What the queen asks of whatever keeps its state: accepted tasks until they end, and small documents of five kinds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode

Kind = Literal["session", "model", "artifact", "node", "record"]
"""`record` is the view of a task that has ended, by its task id."""

KINDS: tuple[Kind, ...] = ("session", "model", "artifact", "node", "record")

RECORDS_KEPT = 10_000
ARTIFACTS_KEPT = 100_000
BOUNDS: dict[Kind, int] = {"record": RECORDS_KEPT, "artifact": ARTIFACTS_KEPT}
"""How many documents of a kind are kept at most, the oldest go first. A store may keep up to 1 % less."""


class StoreFailure(Exception):
    """Something could not be stored or read: the text says what and where, `hint` how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class StoredTask:
    """An accepted task that has not ended. `request` is the TaskRequest as JSON, prompt included; `submitted` is in
    seconds since the epoch. `generation` counts the queens that started after it was accepted; `delivered` is whether
    a token of it was shown to anybody; `ended`, that it had ended, and the queen was killed before that was stored, and
    with it how. `accept` takes no notice of these three."""

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
    """A small JSON document; `tag` narrows listings (an artifact's kind), `stored` is in seconds since the epoch and
    the caller's own: a store keeps it and orders nothing by it."""

    key: str
    body: str
    tag: str = ""
    stored: float = 0.0


class Store(Protocol):
    """One store; a single loop owns the writing, callers wait for what they need to be durable.

    Operations take effect in the order in which they are called. Text that is not Unicode (lone surrogates) is a
    ValueError. When StoreFailure is raised, nothing of the operation was stored, except that a document may have been
    where the disk did not answer in time. A caller that is cancelled does not know.
    """

    async def accept(self, task: StoredTask) -> None:
        """Return when `task` survives a crash and a power cut. Raises StoreFailure.

        A task that `accept` did not return for, cancelled or failed, is forgotten. The task may be `delivered` and
        `ended` before this returns. Raises ValueError when a task of this id is open.
        """
        ...

    def delivered(self, task_id: UUID) -> None:
        """A token of the task is about to be shown: from now on a killed queen knows.

        Takes microseconds: it does not wait for the disk, and a power cut may undo it. A failure is reported in the
        journal. Nothing for a task that is not open.
        """
        ...

    def ended(self, task_id: UUID) -> None:
        """The task has ended: a killed queen knows from now on; it and its prompt are erased within seconds.

        As cheap as `delivered`, and as tolerant.
        """
        ...

    async def put(self, kind: Kind, document: Document) -> None:
        """Store or replace a document; durable on return. Raises StoreFailure."""
        ...

    def put_later(self, kind: Kind, document: Document) -> None:
        """Store or replace a document, within a fraction of a second; a failure is reported in the journal."""
        ...

    async def remove(self, kind: Kind, key: str) -> bool:
        """Remove a document; whether it was there. Durable on return. Raises StoreFailure."""
        ...

    async def get(self, kind: Kind, key: str) -> Document | None:
        """One document, those of `put_later` included unless they fail. Raises StoreFailure."""
        ...

    async def listed(
        self, kind: Kind, *, tag: str | None = None, before: str | None = None, limit: int = 1_000_000
    ) -> Sequence[Document]:
        """Documents, those stored or replaced last first, behind the one with key `before`. Raises StoreFailure.

        Behind a document that is not there (any more) there is nothing.
        """
        ...

    async def open_tasks(self) -> Sequence[StoredTask]:
        """The tasks that have not ended for all that is stored, in the order of their admission. Raises StoreFailure.

        `generation` has been counted up, durably, when the store was opened: what was once given away under a
        generation is not given away again.
        """
        ...

    async def ping(self) -> None:
        """Return when a small write has become durable. Raises StoreFailure."""
        ...


def not_stored(error: StoreFailure) -> ApiError:
    """503: the queen's state could not be written or read; nothing was half done."""
    hint = error.hint or "See journalctl -u queen-rbee. Once that is mended, send the same request again."
    return ApiError(503, ErrorBody(code=ErrorCode.INTERNAL, message=str(error), hint=hint, retriable=True))
