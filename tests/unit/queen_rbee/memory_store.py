"""A store in memory that follows the protocol: for tests of its users, and as a model of the real store."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import trio

from queen_rbee.store.protocol import BOUNDS, KINDS, Document, Kind, StoredTask, StoreFailure


@dataclass
class MemoryStore:
    """Newest entries are last. While `failure` is set, everything that would wait for the disk raises it."""

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
            self.ended(task.task_id)
            raise

    def delivered(self, task_id: UUID) -> None:
        if task := self.tasks.get(task_id):
            self.tasks[task_id] = replace(task, delivered=True)

    def ended(self, task_id: UUID) -> None:
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
        existed = self.documents[kind].pop(key, None) is not None
        await trio.lowlevel.checkpoint()
        return existed

    async def get(self, kind: Kind, key: str) -> Document | None:
        await self.ping()
        return self.documents[kind].get(key)

    async def listed(
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
        """Checkpoint, as a wait for the disk does. Raises `failure`."""
        await trio.lowlevel.checkpoint()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self.failure:
            raise self.failure

    def after_restart(self) -> "MemoryStore":
        """Return the store as it is after a restart or a crash."""
        tasks = {task_id: replace(task, generation=task.generation + 1) for task_id, task in self.tasks.items()}
        return MemoryStore(tasks, {kind: dict(documents) for kind, documents in self.documents.items()})
