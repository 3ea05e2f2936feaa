"""The shared state of a single queen: leases in memory, nodes and tasks in its store."""

from collections import Counter
from collections.abc import Mapping, Sequence

from queen_rbee.shared.protocol import SharedState, SlotsKey
from queen_rbee.store.protocol import Document, Store


class LeaseTable:
    """Implements `Leases`. `take` never waits, so that a placement is one step of the event loop."""

    def __init__(self) -> None:
        self._held: Counter[SlotsKey] = Counter()
        self.total = 0

    async def take(self, key: SlotsKey, slots: int) -> bool:
        if self._held[key] >= slots:
            return False
        self._held[key] += 1
        self.total += 1
        return True

    def release(self, key: SlotsKey) -> None:
        self._held[key] -= 1
        self.total -= 1
        if not self._held[key]:
            del self._held[key]

    def held(self, key: SlotsKey) -> int:
        return self._held[key]

    def by_replica(self) -> Mapping[SlotsKey, int]:
        return dict(self._held)


class StoredNodes:
    """Implements `NodeRecords`. The caller keeps `store` open."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def upsert(self, record: Document) -> None:
        await self._store.put("node", record)

    def upsert_later(self, record: Document) -> None:
        self._store.put_later("node", record)

    async def remove(self, node_id: str) -> bool:
        return await self._store.remove("node", node_id)

    async def all(self) -> Sequence[Document]:
        return await self._store.list_documents("node")


def in_process(store: Store) -> SharedState:
    """Return the state of the only queen that uses `store`."""
    return SharedState(leases=LeaseTable(), nodes=StoredNodes(store), tasks=store)
