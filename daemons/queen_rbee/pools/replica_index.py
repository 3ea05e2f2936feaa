"""Index of the known replicas: by pool, by model and by demand. Plain data without I/O.

Each change updates the lists that it affects, so that neither a heartbeat nor a placement visits thousands of replicas.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from llama_orch.engines.wire.model_names import model_key
from queen_rbee.pools.candidates import Candidate, Demand, ReplicaKey
from queen_rbee.pools.placement import meets


class Matching(Sequence[Candidate]):
    """A live sequence of candidates. It is valid until a replica is added or removed."""

    def __init__(self, keys: Sequence[ReplicaKey], known: Mapping[ReplicaKey, Candidate]) -> None:
        self._keys = keys
        self._known = known

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Candidate]:
        return map(self._known.__getitem__, self._keys)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, index: int | slice) -> Candidate | Sequence[Candidate]:
        if isinstance(index, slice):
            return Matching(self._keys[index], self._known)
        return self._known[self._keys[index]]


DEMANDS_LIMIT = 256
"""The most demands with a list of their own; when there are more, all these lists are dropped."""


@dataclass(frozen=True)
class Contexts:
    """The contexts of some replicas: the `largest` one in tokens per slot, and whether that of any is `unknown`."""

    largest: int | None
    unknown: bool


class ReplicaIndex:
    """All lists are sorted by key. The list of each demand that was asked for is kept up to date."""

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._known: dict[ReplicaKey, Candidate] = {}
        self._keys: list[ReplicaKey] = []
        self._by_pool: dict[str, list[ReplicaKey]] = {}
        self._by_model: dict[str, list[ReplicaKey]] = {}
        self._by_demand: dict[Demand, list[ReplicaKey]] = {}
        self._labels: dict[Demand, tuple[str, str]] = {}
        self._contexts: dict[Demand, Contexts] = {}
        self.slots_open = 0
        """The slots of all replicas on which a task could start now."""
        self.changes = 0
        """Incremented by every change of a candidate."""
        for candidate in candidates:
            self.put(candidate)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def get(self, key: ReplicaKey) -> Candidate | None:
        return self._known.get(key)

    def all(self) -> Sequence[Candidate]:
        """Return every replica, ready or not."""
        return Matching(self._keys, self._known)

    def of_pool(self, pool_id: str) -> Sequence[Candidate]:
        """Return the replicas of all pools with this id."""
        return Matching(self._by_pool.get(pool_id, ()), self._known)

    def serving(self, model_ref: str) -> Sequence[Candidate]:
        """Return the replicas for which `serves_model` is true."""
        return Matching(self._by_model.get(model_key(model_ref), ()), self._known)

    def suitable(self, demand: Demand) -> Matching:
        """Return the replicas that meet `demand`, busy or not."""
        keys = self._by_demand.get(demand)
        if keys is None:
            if len(self._by_demand) >= DEMANDS_LIMIT:
                self._by_demand.clear()
            keys = self._by_demand[demand] = [found.key for found in self._superset(demand) if meets(found, demand)]
        return Matching(keys, self._known)

    def shared_labels(self, demand: Demand) -> tuple[str, str]:
        """Return the engine and the pool id that all suitable replicas share; each is empty if they differ."""
        found = self._labels.get(demand)
        if found is None:
            if len(self._labels) >= DEMANDS_LIMIT:
                self._labels.clear()
            suitable = self.suitable(demand)
            found = _common(replica.engine for replica in suitable), _common(replica.pool_id for replica in suitable)
            self._labels[demand] = found
        return found

    def contexts(self, demand: Demand) -> Contexts:
        """Return the contexts of the suitable replicas. Computed once until the traits of a replica change."""
        found = self._contexts.get(demand)
        if found is None:
            if len(self._contexts) >= DEMANDS_LIMIT:
                self._contexts.clear()
            sizes = {replica.ctx_max or None for replica in self.suitable(demand)}
            found = Contexts(max((size for size in sizes if size), default=None), None in sizes)
            self._contexts[demand] = found
        return found

    def _superset(self, demand: Demand) -> Sequence[Candidate]:
        """Return the shortest list that includes all replicas that meet `demand`."""
        if demand.pin:
            return self.of_pool(demand.pin)
        return self.serving(demand.model_ref) if demand.model_ref else self.all()

    def put(self, candidate: Candidate) -> None:
        """Add or replace a replica."""
        before = self._known.get(candidate.key)
        self._known[candidate.key] = candidate
        self._count(before, candidate)
        if before is None or before.traits != candidate.traits:
            self._reindex(candidate.key, before, candidate)

    def drop(self, key: ReplicaKey) -> None:
        """Remove a replica if it is known."""
        if before := self._known.pop(key, None):
            self._count(before, None)
            self._reindex(key, before, None)

    def _count(self, before: Candidate | None, after: Candidate | None) -> None:
        self.changes += 1
        self.slots_open += _open_slots(after) - _open_slots(before)

    def _reindex(self, key: ReplicaKey, before: Candidate | None, after: Candidate | None) -> None:
        self._labels.clear()
        self._contexts.clear()
        _set_member(self._keys, key, member=after is not None)
        _set_indexed(self._by_pool, key[0], key, member=after is not None)
        names = set(_model_keys(after))
        for name in names.union(_model_keys(before)):
            _set_indexed(self._by_model, name, key, member=name in names)
        for demand, keys in self._by_demand.items():
            _set_member(keys, key, member=after is not None and meets(after, demand))


def _common(names: Iterable[str]) -> str:
    distinct = set(names)
    return distinct.pop() if len(distinct) == 1 else ""


def _open_slots(candidate: Candidate | None) -> int:
    return candidate.slots_free if candidate and candidate.open else 0


def _model_keys(candidate: Candidate | None) -> Iterator[str]:
    return map(model_key, candidate.models if candidate else ())


def _set_indexed(index: dict[str, list[ReplicaKey]], name: str, key: ReplicaKey, *, member: bool) -> None:
    """As `_set_member`, in the list under `name`. Empty lists are removed from the index."""
    keys = index.setdefault(name, [])
    _set_member(keys, key, member=member)
    if not keys:
        del index[name]


def _set_member(keys: list[ReplicaKey], key: ReplicaKey, *, member: bool) -> None:
    """Insert `key` into the sorted list, or remove it."""
    position = bisect_left(keys, key)
    present = position < len(keys) and keys[position] == key
    if member and not present:
        keys.insert(position, key)
    elif present and not member:
        del keys[position]
