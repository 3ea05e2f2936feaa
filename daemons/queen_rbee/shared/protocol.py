"""What several queen-rbee instances behind the same sockets would share: a protocol for each idea.

A single queen keeps all of it in its own memory and store (`in_process`). These rules let another implementation keep
it elsewhere. Values go in and come out; no caller gets a container that changes. A step that must happen once among
all instances is one `async` method that says whether it happened, and its caller expects that anything else may have
changed meanwhile. A method that is not `async` answers from what this instance knows, or reports what needs no answer.

Not shared yet: the order of admission and the sessions, on which an admission decides without waiting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from queen_rbee.store.protocol import Document, DurableTasks

SlotsKey = tuple[str, str]
"""The pool id and the replica id: the replica whose slots are leased."""


class Leases(Protocol):
    """The slots of replicas that running tasks hold."""

    async def take(self, key: SlotsKey, slots: int) -> bool:
        """Take one of the replica's `slots` slots; False if all are held, which `held` knows from then on.

        A call that is cancelled or raises has taken none.
        """
        ...

    def release(self, key: SlotsKey) -> None:
        """Give back a slot that this instance has taken. Never fails, and is not forgotten."""
        ...

    def held(self, key: SlotsKey) -> int:
        """Return how many slots of the replica are held; also of one that nobody reports any more."""
        ...

    def by_replica(self) -> Mapping[SlotsKey, int]:
        """Return a copy of the counts above 0."""
        ...

    @property
    def total(self) -> int:
        """The number of slots held on all replicas."""
        ...


class NodeRecords(Protocol):
    """The records of registered nodes, by node id. A failed or cancelled change may be retried."""

    async def upsert(self, record: Document) -> None:
        """Add or replace a node's record. Durable on return. Raises StoreFailure, and then nothing has changed."""
        ...

    def upsert_later(self, record: Document) -> None:
        """Add or replace a node's record within a fraction of a second, in the order of calls. Failures are logged."""
        ...

    async def remove(self, node_id: str) -> bool:
        """Remove a node's record; return whether there was one. Durable on return. Raises StoreFailure."""
        ...

    async def all(self) -> Sequence[Document]:
        """Return the records of all nodes. Raises StoreFailure."""
        ...


@dataclass(frozen=True)
class SharedState:
    """All shared state of one instance. `tasks` are the stored tasks that have not ended."""

    leases: Leases
    nodes: NodeRecords
    tasks: DurableTasks
