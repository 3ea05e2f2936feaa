"""The pools that the queen knows, and the slots that its tasks lease on them: one owner for both.

A source (a pool-managerd, the handoff directory, a node) always reports all of its pools. If several sources report a
pool, the one with the lowest rank is in effect. Leases belong to running tasks and outlive a source's reports. Only
pools that a report changes are processed, so that the cost of a heartbeat does not depend on the number of nodes.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.pools import CircuitState, MemoryBudget, PoolStatus
from llama_orch.engines.wire.adapter import EngineAdapter
from llama_orch.engines.wire.model_names import model_key
from llama_orch.engines.wire.passage import endpoints_for
from queen_rbee.pools.candidates import Candidate, ReplicaKey, build_candidate, placeholder_replica
from queen_rbee.pools.replica_index import ReplicaIndex
from queen_rbee.pools.source_reports import PoolKey, SourceReports
from queen_rbee.shared.in_process import LeaseTable
from queen_rbee.shared.protocol import Leases


class PoolRegistry:
    """Owned by the daemon. Rings `changed` when a task that could not be placed might be now.

    `adapters` are those of the engines that this release supports. Only the registry takes and releases `leases`.
    """

    def __init__(self, changed: Bell, adapters: Mapping[str, EngineAdapter], leases: Leases | None = None) -> None:
        self._reports = SourceReports()
        self._changed = changed
        self._adapters = adapters
        self._leases = leases or LeaseTable()
        self._circuits: dict[ReplicaKey, CircuitState] = {}
        self._withheld: frozenset[str] = frozenset()
        self._replicas_of: dict[PoolKey, tuple[ReplicaKey, ...]] = {}
        self._change = trio.Event()
        self._held: frozenset[PoolKey] = frozenset()
        self._memory: dict[str, Sequence[MemoryBudget]] = {}
        self.residency = Bell()
        """Rung when something changes on which loading and unloading depend."""
        self.residents: set[PoolKey] = set()
        """The pools whose models are loaded on demand."""
        self.watch_releases = False
        """Whether the release of a slot may let a model be loaded or unloaded."""
        self._released_at: dict[ReplicaKey, float] = {}
        self.replicas = ReplicaIndex()
        """All replicas with this queen's leases; read-only for others. A pool without replicas has a placeholder."""
        self.on_ready: list[Callable[[ReplicaKey], None]] = []
        """Called with each replica that becomes ready."""
        self.synced = False
        """Whether every source has reported once. Only then does a pool that is not known not exist."""

    def update(self, source: str, rank: int, pools: Iterable[PoolStatus], memory: Sequence[MemoryBudget] = ()) -> None:
        """Replace everything `source` reported; `memory` is that of its machine."""
        if self._memory.get(source, ()) != memory:
            self._memory[source] = memory
            self.ring_residency()
        self._apply(self._reports.replace(source, rank, tuple(pools)))

    def forget(self, source: str) -> None:
        """Drop everything `source` reported."""
        self._memory.pop(source, None)
        self._apply(self._reports.replace(source, 0, ()))

    def source_of(self, key: PoolKey) -> str | None:
        """Return the source whose report of the pool is in effect."""
        return self._reports.source_of(key)

    def ring_residency(self) -> None:
        """Let it be decided anew which models to load and unload, if there are any on demand."""
        if self.residents:
            self.residency.ring()

    def memory(self) -> Mapping[str, Sequence[MemoryBudget]]:
        """Return the memory of each machine, by the source that reports it."""
        return self._memory

    def hold(self, keys: Iterable[PoolKey]) -> None:
        """Send no new tasks to these pools, and to no others: their models are about to be unloaded."""
        before, self._held = self._held, frozenset(keys)
        changed = before ^ self._held
        for key in changed:
            for replica in self._replicas_of.get(key, ()):
                self._update_load(replica)
        if changed:
            self._changed.ring()

    def withhold(self, names: frozenset[str]) -> None:
        """Set the model names (as by `model_key`) that no pool may be asked for."""
        if self._withheld != names:
            self._withheld = names
            self._apply(list(self._reports.effective))

    def set_circuit(self, key: ReplicaKey, state: CircuitState) -> None:
        """Set the state of a replica's circuit. Tasks are sent only through closed ones."""
        if self._circuits.get(key, "closed") == state:
            return
        self._circuits[key] = state
        if state == "closed":
            del self._circuits[key]
        if key in self.replicas:
            self._update_load(key)
            self._changed.ring()

    def effective_pools(self) -> Collection[PoolStatus]:
        """Return each pool as reported, unsorted. The collection is a live view."""
        return self._reports.effective.values()

    def pools(self) -> list[PoolStatus]:
        """Return all pools sorted by id, with this queen's leases and circuits."""
        return [self._with_load(key, pool) for key, pool in sorted(self._reports.effective.items())]

    def pools_named(self, pool_id: str) -> list[PoolStatus]:
        """Return the pools with this id, one for each node that has it, as `pools` does."""
        keys = sorted(key for key in self._reports.effective if key[0] == pool_id)
        return [self._with_load(key, self._reports.effective[key]) for key in keys]

    def find_pools(self, keys: Iterable[PoolKey]) -> list[PoolStatus]:
        """Return those of these pools that are known, as reported."""
        return [pool for key in keys if (pool := self._reports.effective.get(key))]

    @property
    def ready_pools(self) -> int:
        """The number of ready pools."""
        return self._reports.ready.total()

    @property
    def ready_by_id(self) -> Mapping[str, int]:
        """The number of ready pools by pool id; 0 for an id that is known but not ready anywhere."""
        return self._reports.ready

    def _with_load(self, key: PoolKey, pool: PoolStatus) -> PoolStatus:
        if not self._leases.total and not self._circuits:
            return pool
        replicas = self._replicas_of[key]
        leases = self.count_leases(replicas)
        states = {self._circuits.get(replica, "closed") for replica in replicas}
        circuit = next((state for state in ("closed", "half-open") if state in states), "open")
        changes = {"active_leases": max(leases, pool.active_leases), "circuit": circuit}
        return pool.model_copy(update=changes) if leases or circuit != "closed" else pool

    async def wait_for_change(self) -> None:
        """Return when a pool or a lease has changed."""
        await self._change.wait()

    def _notify(self) -> None:
        change, self._change = self._change, trio.Event()
        change.set()

    async def lease(self, key: ReplicaKey) -> bool:
        """Lease a slot of the replica to a task; False if none is free."""
        known = self.replicas.get(key)
        taken = known is not None and await self._leases.take(key, known.slots_total)
        self._update_leases(key)
        return taken

    def release(self, key: ReplicaKey, *, wake: bool = True) -> None:
        """Release a slot of the replica; `wake` the dispatcher, for which a task may wait."""
        self._leases.release(key)
        if self.residents:
            self._released_at[key] = trio.current_time()
        self._update_leases(key)
        if wake:
            self._changed.ring()
        if self.watch_releases:
            self.residency.ring()

    def leases_by_replica(self) -> Mapping[ReplicaKey, int]:
        """Return the leased slots by replica, including replicas that are no longer known."""
        return self._leases.by_replica()

    @property
    def leased(self) -> int:
        """The number of leased slots on all replicas."""
        return self._leases.total

    def count_leases(self, keys: Iterable[ReplicaKey]) -> int:
        return sum(map(self._leases.held, keys))

    def last_release(self, keys: Iterable[ReplicaKey]) -> float:
        """Return when a slot of these replicas was last released, on trio's clock; minus infinity if never."""
        return max((self._released_at.get(key, -inf) for key in keys), default=-inf)

    def replicas_of(self, key: PoolKey) -> Sequence[ReplicaKey]:
        return self._replicas_of.get(key, ())

    def _update_leases(self, key: ReplicaKey) -> None:
        self._update_load(key)
        self._notify()

    def _update_load(self, key: ReplicaKey) -> None:
        if known := self.replicas.get(key):
            self.replicas.put(self._loaded(known))

    def _loaded(self, candidate: Candidate) -> Candidate:
        """Return `candidate` with what this queen knows of it: leases, circuit, and whether it is held."""
        key = candidate.key
        held = bool(self._held) and (candidate.pool_id, candidate.node_id or "") in self._held
        return candidate.with_load(self._leases.held(key), self._circuits.get(key, "closed"), held=held)

    def _apply(self, keys: Sequence[PoolKey]) -> None:
        """Rebuild pools whose reports changed. Wake the dispatcher only if that can change a placement."""
        capacity_changed = [self._rebuild(key) for key in keys]
        self._notify()
        if any(capacity_changed):
            self._changed.ring()

    def _rebuild(self, key: PoolKey) -> bool:
        """Rebuild a pool's candidates. Return whether the tasks that can run there, or their number, changed."""
        pool = self._reports.effective.get(key)
        after = {found.key: found for found in self._candidates(pool)} if pool else {}
        before = {member: found for member in self._replicas_of.pop(key, ()) if (found := self.replicas.get(member))}
        for removed in before.keys() - after.keys():
            self.replicas.drop(removed)
            self._released_at.pop(removed, None)
        if pool and pool.residency:
            self.residents.add(key)
            self.residency.ring()
        elif key in self.residents:
            self.residents.discard(key)
            self.residency.ring()
        if pool:
            self._replicas_of[key] = tuple(after)
        for found in after.values():
            self.replicas.put(found)
            if found.ready and not (found.key in before and before[found.key].ready):
                for call in self.on_ready:
                    call(found.key)
        return _capacities(before) != _capacities(after)

    def _candidates(self, pool: PoolStatus) -> list[Candidate]:
        adapter = self._adapters.get(pool.engine)
        withheld = tuple(model for model in pool.models_available if model_key(model) in self._withheld)
        candidates = []
        for replica in pool.replicas or [placeholder_replica(pool)]:
            workloads = replica.workloads or pool.workloads
            endpoints = endpoints_for(adapter.endpoints, workloads) if adapter else None
            candidates.append(self._loaded(build_candidate(pool, replica, withheld, endpoints)))
        return candidates


def _capacities(candidates: Mapping[ReplicaKey, Candidate]) -> dict[ReplicaKey, tuple[object, ...]]:
    return {key: candidate.capacity for key, candidate in candidates.items()}
