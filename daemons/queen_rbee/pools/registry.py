"""The pools that the queen knows, and the slots that its tasks hold on them: one owner for both.

Sources (a pool-managerd, the handoff directory, a node) replace what they know as a whole; where several know a pool,
the one with the lowest rank is believed. Leases outlive a source's silence: they belong to running tasks. What a source
says is worked in pool by pool, so that a heartbeat costs as much as it brings, however many nodes there are.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.pools import CircuitState, PoolStatus
from llama_orch.engines.wire.adapter import EngineAdapter
from llama_orch.engines.wire.model_names import model_key
from llama_orch.engines.wire.passage import endpoints_for
from queen_rbee.pools.candidates import Candidate, Key, absent, candidate_of
from queen_rbee.pools.claims import Claims, PoolKey
from queen_rbee.pools.directory import Directory


def _nobody(_key: Key) -> None:
    """Nobody wants to know."""


class Registry:
    """Owned by the daemon; `changed` is rung whenever a task that could not be placed might be now, `adapters` are for
    the engines that this release speaks to."""

    def __init__(self, changed: Bell, adapters: Mapping[str, EngineAdapter]) -> None:
        self._claims = Claims()
        self._changed = changed
        self._adapters = adapters
        self._leases: Counter[Key] = Counter()
        self._circuits: dict[Key, CircuitState] = {}
        self._withheld: frozenset[str] = frozenset()
        self._members: dict[PoolKey, tuple[Key, ...]] = {}
        self._altered = trio.Event()
        self.replicas = Directory()
        """All of them, with this queen's leases; to be looked at only. A pool without any stands for itself."""
        self.on_ready: Callable[[Key], None] = _nobody
        """Told of each replica that was not ready and is now."""
        self.synced = False
        """Whether every source has spoken once: only then can a pool be said not to exist."""

    def update(self, source: str, rank: int, pools: Iterable[PoolStatus]) -> None:
        """`source` now knows just these pools."""
        self._work_in(self._claims.replace(source, rank, tuple(pools)))

    def forget(self, source: str) -> None:
        """`source` cannot be asked any more."""
        self._work_in(self._claims.replace(source, 0, ()))

    def source_of(self, key: PoolKey) -> str | None:
        """Who is believed about a pool."""
        return self._claims.source_of(key)

    def withhold(self, names: frozenset[str]) -> None:
        """No pool may be asked for the models of these short names, and only for these."""
        if self._withheld != names:
            self._withheld = names
            self._work_in(list(self._claims.believed))

    def set_circuit(self, key: Key, state: CircuitState) -> None:
        """Nothing is sent to a replica whose circuit is not `closed`."""
        if self._circuits.get(key, "closed") == state:
            return
        self._circuits[key] = state
        if state == "closed":
            del self._circuits[key]
        if known := self.replicas.get(key):
            self.replicas.put(known.counted(self._leases[key], state))
            self._changed.ring()

    def believed(self) -> Collection[PoolStatus]:
        """Each pool once, in no order, as the best source has it."""
        return self._claims.believed.values()

    def pools(self) -> list[PoolStatus]:
        """The same by id, with this queen's leases counted: a copy of all that are used."""
        return [self._counted(key, pool) for key, pool in sorted(self._claims.believed.items())]

    def pools_named(self, pool_id: str) -> list[PoolStatus]:
        """The pools of that id: one for each node that has it."""
        keys = sorted(key for key in self._claims.believed if key[0] == pool_id)
        return [self._counted(key, self._claims.believed[key]) for key in keys]

    def known(self, keys: Iterable[PoolKey]) -> list[PoolStatus]:
        """Those of these pools that are known, as they are believed to be."""
        return [pool for key in keys if (pool := self._claims.believed.get(key))]

    @property
    def ready_pools(self) -> int:
        """How many pools are ready."""
        return self._claims.ready.total()

    @property
    def ready_by_id(self) -> Mapping[str, int]:
        """How many pools of each id are ready; 0 for an id that is known and not ready anywhere."""
        return self._claims.ready

    def _counted(self, key: PoolKey, pool: PoolStatus) -> PoolStatus:
        if not self._leases and not self._circuits:
            return pool
        members = self._members[key]
        leases = sum(self._leases[member] for member in members)
        states = {self._circuits.get(member, "closed") for member in members}
        circuit = next((state for state in ("closed", "half-open") if state in states), "open")
        changes = {"active_leases": max(leases, pool.active_leases), "circuit": circuit}
        return pool.model_copy(update=changes) if leases or circuit != "closed" else pool

    async def altered(self) -> None:
        """Return when anything has changed: a pool, or who holds which slot."""
        await self._altered.wait()

    def _tell(self) -> None:
        altered, self._altered = self._altered, trio.Event()
        altered.set()

    def lease(self, key: Key) -> None:
        """A task takes a slot of the replica `key`."""
        self._leases[key] += 1
        self._recount(key)

    def release(self, key: Key) -> None:
        """A task gives its slot back."""
        self._leases[key] -= 1
        if not self._leases[key]:
            del self._leases[key]
        self._recount(key)
        self._changed.ring()

    @property
    def held(self) -> Mapping[Key, int]:
        """The slots that are held now, by replica: also where that is not known any more."""
        return self._leases

    @property
    def leased(self) -> int:
        """Slots that are held now, on all replicas."""
        return self._leases.total()

    def leases(self, keys: Iterable[Key]) -> int:
        """Slots that are held now on these replicas."""
        return sum(self._leases[key] for key in keys)

    def members(self, key: PoolKey) -> Sequence[Key]:
        """The replicas of a pool."""
        return self._members.get(key, ())

    def _recount(self, key: Key) -> None:
        if known := self.replicas.get(key):
            self.replicas.put(known.counted(self._leases[key], known.circuit))
        self._tell()

    def _work_in(self, keys: Sequence[PoolKey]) -> None:
        """These pools are others now, or gone. The dispatcher is woken by what can change a placement only."""
        altered = [self._rebuild(key) for key in keys]
        self._tell()
        if any(altered):
            self._changed.ring()

    def _rebuild(self, key: PoolKey) -> bool:
        """Whether other tasks than before can run there, or more."""
        pool = self._claims.believed.get(key)
        after = {found.key: found for found in self._of(pool)} if pool else {}
        before = {member: found for member in self._members.pop(key, ()) if (found := self.replicas.get(member))}
        for gone in before.keys() - after.keys():
            self.replicas.drop(gone)
        if pool:
            self._members[key] = tuple(after)
        for found in after.values():
            self.replicas.put(found)
            if found.ready and not (found.key in before and before[found.key].ready):
                self.on_ready(found.key)
        shapes = ({member: found.shape for member, found in some.items()} for some in (before, after))
        return next(shapes) != next(shapes)

    def _of(self, pool: PoolStatus) -> list[Candidate]:
        adapter = self._adapters.get(pool.engine)
        refused = tuple(model for model in pool.models_available if model_key(model) in self._withheld)
        found = []
        for replica in pool.replicas or [absent(pool)]:
            key = pool.pool_id, replica.replica_id
            workloads = replica.workloads or pool.workloads
            endpoints = endpoints_for(adapter.endpoints, workloads) if adapter else None
            candidate = candidate_of(pool, replica, refused, endpoints)
            found.append(candidate.counted(self._leases[key], self._circuits.get(key, "closed")))
        return found
