"""The pools that the queen knows, and the slots that its tasks hold on them: one owner for both.

Sources (a pool-managerd, the handoff directory) replace what they know as a whole; where several know a pool, the one
with the lowest rank is believed. Leases outlive a source's silence: they belong to running tasks.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from llama_orch.contracts.pools import PoolStatus, ReplicaStatus
from llama_orch.spool import Bell
from queen_rbee.candidates import Candidate, short_name
from queen_rbee.engines.adapter import EngineAdapter

Key = tuple[str, str]


@dataclass(frozen=True)
class Known:
    """What one source said last. A lower rank is believed first."""

    rank: int
    pools: tuple[PoolStatus, ...]


class Registry:
    """Owned by the daemon; `changed` is rung whenever a task that could not be placed might be now, `adapters` are for
    the engines that this release speaks to."""

    def __init__(self, changed: Bell, adapters: Mapping[str, EngineAdapter]) -> None:
        self._sources: dict[str, Known] = {}
        self._leases: Counter[Key] = Counter()
        self._changed = changed
        self._adapters = adapters
        self._candidates: tuple[Candidate, ...] | None = None
        self._withheld: frozenset[str] = frozenset()
        self.synced = False
        """Whether every source has spoken once: only then can a pool be said not to exist."""

    def update(self, source: str, rank: int, pools: Iterable[PoolStatus]) -> None:
        """`source` now knows just these pools."""
        known = Known(rank, tuple(pools))
        if self._sources.get(source) != known:
            self._sources[source] = known
            self._altered()

    def forget(self, source: str) -> None:
        """`source` cannot be asked any more."""
        if self._sources.pop(source, None):
            self._altered()

    def withhold(self, names: frozenset[str]) -> None:
        """No pool may be asked for the models of these short names, and only for these."""
        if self._withheld != names:
            self._withheld = names
            self._altered()

    def pools(self) -> list[PoolStatus]:
        """Each pool once, as the best source has it, with this queen's leases counted."""
        found: dict[str, PoolStatus] = {}
        for known in sorted(self._sources.values(), key=lambda item: item.rank):
            for pool in known.pools:
                found.setdefault(pool.pool_id, pool)
        return [self._counted(found[pool_id]) for pool_id in sorted(found)]

    def _counted(self, pool: PoolStatus) -> PoolStatus:
        leases = sum(self._leases[pool.pool_id, replica.replica_id] for replica in pool.replicas)
        return pool.model_copy(update={"active_leases": max(leases, pool.active_leases)})

    def candidates(self) -> tuple[Candidate, ...]:
        """Every replica known, ready or not; a pool that has none yet, or none left, stands for itself."""
        if self._candidates is None:
            self._candidates = tuple(candidate for pool in self.pools() for candidate in self._replicas(pool))
        return self._candidates

    def _replicas(self, pool: PoolStatus) -> Iterator[Candidate]:
        absent = ReplicaStatus(replica_id="none", url="", ready=False, slots_total=0, slots_free=0)
        adapter = self._adapters.get(pool.engine)
        refused = tuple(model for model in pool.models_available if short_name(model) in self._withheld)
        for replica in pool.replicas or [absent]:
            yield Candidate(
                pool_id=pool.pool_id,
                replica_id=replica.replica_id,
                url=replica.url,
                state=pool.state,
                ready=replica.ready and pool.ready,
                draining=pool.draining,
                slots_total=replica.slots_total,
                leased=self._leases[pool.pool_id, replica.replica_id],
                engine=pool.engine,
                engine_version=pool.engine_version,
                models=tuple(model for model in pool.models_available if model not in refused),
                withheld=refused,
                ctx_max=pool.ctx_max,
                device_mask=pool.device_mask,
                vram_free_bytes=pool.vram_free_bytes,
                endpoints=adapter.endpoints if adapter else None,
            )

    def lease(self, key: Key) -> None:
        """A task takes a slot of the replica `key`."""
        self._leases[key] += 1
        self._candidates = None

    def release(self, key: Key) -> None:
        """A task gives its slot back."""
        self._leases[key] -= 1
        if not self._leases[key]:
            del self._leases[key]
        self._altered()

    @property
    def leased(self) -> int:
        """Slots that are held now, on all replicas."""
        return self._leases.total()

    def slots(self) -> tuple[int, int]:
        """Total and free slots of what is ready."""
        ready = [candidate for candidate in self.candidates() if candidate.ready and not candidate.draining]
        return sum(c.slots_total for c in ready), sum(c.slots_free for c in ready)

    def _altered(self) -> None:
        self._candidates = None
        self._changed.ring()
