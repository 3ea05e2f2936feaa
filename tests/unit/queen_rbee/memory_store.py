"""An in-memory implementation of the store protocol, for tests of its users and as a model of the real one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import trio

from queen_rbee.store.protocol import BOUNDS, KINDS, Document, Kind, StoredTask, StoreFailure


@dataclass
class MemoryStore:
    """Dictionaries, the newest entry last. While `failure` is set, operations that wait for the disk raise it."""

    tasks: dict[UUID, StoredTask] = field(default_factory=dict)
    documents: dict[Kind, dict[str, Document]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    failure: StoreFailure | None = None

    async def accept(self, task: StoredTask) -> None:
        if task.task_id in self.tasks:
            raise ValueError(f"task {task.task_id} is open")
        (task.request + task.correlation_id + (task.traceparent or "")).encode()
        self.tasks[task.task_id] = replace(task, generation=0, delivered=False)
        try:
            await self.ping()
        except BaseException:
            self.mark_ended(task.task_id)
            raise

    def mark_delivered(self, task_id: UUID) -> None:
        if task := self.tasks.get(task_id):
            self.tasks[task_id] = replace(task, delivered=True)

    def mark_ended(self, task_id: UUID) -> None:
        self.tasks.pop(task_id, None)

    async def put(self, kind: Kind, document: Document) -> None:
        self._raise_failure()
        self.put_later(kind, document)
        await trio.lowlevel.checkpoint()

    def put_later(self, kind: Kind, document: Document) -> None:
        (document.key + document.tag + document.body).encode()
        documents = self.documents[kind]
        documents.pop(document.key, None)
        documents[document.key] = document
        if len(documents) > BOUNDS.get(kind, len(documents)):
            del documents[next(iter(documents))]

    async def remove(self, kind: Kind, key: str) -> bool:
        self._raise_failure()
        found = self.documents[kind].pop(key, None) is not None
        await trio.lowlevel.checkpoint()
        return found

    async def get(self, kind: Kind, key: str) -> Document | None:
        await self.ping()
        return self.documents[kind].get(key)

    async def list_documents(
        self, kind: Kind, *, tag: str | None = None, before: str | None = None, limit: int = 1_000_000
    ) -> Sequence[Document]:
        await self.ping()
        newest_first = list(reversed(self.documents[kind].values()))
        if before is not None:
            keys = [document.key for document in newest_first]
            newest_first = newest_first[keys.index(before) + 1 :] if before in keys else []
        return [document for document in newest_first if tag in (None, document.tag)][:limit]

    async def open_tasks(self) -> Sequence[StoredTask]:
        await self.ping()
        return list(self.tasks.values())

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self.failure:
            raise self.failure

    def after_restart(self) -> "MemoryStore":
        """Return the store that the next queen opens, whether this one was stopped or killed."""
        aged = {task_id: replace(task, generation=task.generation + 1) for task_id, task in self.tasks.items()}
        return MemoryStore(aged, {kind: dict(documents) for kind, documents in self.documents.items()})
