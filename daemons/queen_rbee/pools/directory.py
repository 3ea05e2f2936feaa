"""The replicas that are known, by what tasks ask for: each change is worked in where it belongs, so that neither a
heartbeat nor a placement walks through thousands of them. Plain data without I/O."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import overload

from llama_orch.engines.wire.model_names import model_key
from queen_rbee.pools.candidates import Candidate, Demand, Key
from queen_rbee.pools.placement import meets


class Matching(Sequence[Candidate]):
    """A sequence over `known`, which goes on changing; good until other replicas are known."""

    def __init__(self, keys: Sequence[Key], known: Mapping[Key, Candidate]) -> None:
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
        """One, or a part of them."""
        if isinstance(index, slice):
            return Matching(self._keys[index], self._known)
        return self._known[self._keys[index]]


DEMANDS_KEPT = 256


class Directory:
    """All lists are sorted by key. What `suitable` gave for a demand is kept up to date, for DEMANDS_KEPT of them."""

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._known: dict[Key, Candidate] = {}
        self._keys: list[Key] = []
        self._by_pool: dict[str, list[Key]] = {}
        self._by_model: dict[str, list[Key]] = {}
        self._by_demand: dict[Demand, list[Key]] = {}
        self._places: dict[Demand, tuple[str, str]] = {}
        self.slots_open = 0
        """Slots that a task could start on now, on all replicas."""
        self.changes = 0
        """Counts whatever changes a candidate."""
        for candidate in candidates:
            self.put(candidate)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def get(self, key: Key) -> Candidate | None:
        """The replica of that key."""
        return self._known.get(key)

    def all(self) -> Sequence[Candidate]:
        """Every replica, ready or not."""
        return Matching(self._keys, self._known)

    def of_pool(self, pool_id: str) -> Sequence[Candidate]:
        """The replicas of all pools of that id."""
        return Matching(self._by_pool.get(pool_id, ()), self._known)

    def serving(self, model_ref: str) -> Sequence[Candidate]:
        """The replicas that have a model of that name, as `serves_model` has it."""
        return Matching(self._by_model.get(model_key(model_ref), ()), self._known)

    def suitable(self, demand: Demand) -> Matching:
        """The replicas that meet `demand`, free or not."""
        keys = self._by_demand.get(demand)
        if keys is None:
            if len(self._by_demand) >= DEMANDS_KEPT:
                self._by_demand.clear()
            keys = self._by_demand[demand] = [found.key for found in self._near(demand) if meets(found, demand)]
        return Matching(keys, self._known)

    def place_of(self, demand: Demand) -> tuple[str, str]:
        """The engine and the pool id of all replicas that meet `demand`; each is empty where they differ in it."""
        found = self._places.get(demand)
        if found is None:
            if len(self._places) >= DEMANDS_KEPT:
                self._places.clear()
            suitable = self.suitable(demand)
            found = _common(replica.engine for replica in suitable), _common(replica.pool_id for replica in suitable)
            self._places[demand] = found
        return found

    def _near(self, demand: Demand) -> Sequence[Candidate]:
        """A short list that has all that meet `demand`."""
        if demand.pin:
            return self.of_pool(demand.pin)
        return self.serving(demand.model_ref) if demand.model_ref else self.all()

    def put(self, candidate: Candidate) -> None:
        """This is how a replica is from now on."""
        before = self._known.get(candidate.key)
        self._known[candidate.key] = candidate
        self._count(before, candidate)
        if before is None or before.traits != candidate.traits:
            self._enter(candidate.key, before, candidate)

    def drop(self, key: Key) -> None:
        """There is no such replica any more."""
        if before := self._known.pop(key, None):
            self._count(before, None)
            self._enter(key, before, None)

    def _count(self, before: Candidate | None, after: Candidate | None) -> None:
        self.changes += 1
        self.slots_open += _open_slots(after) - _open_slots(before)

    def _enter(self, key: Key, before: Candidate | None, after: Candidate | None) -> None:
        """Put `key` where it belongs now, and take it from where it did before."""
        self._places.clear()
        _set(self._keys, key, wanted=after is not None)
        _file(self._by_pool, key[0], key, wanted=after is not None)
        names = set(_names(after))
        for name in names.union(_names(before)):
            _file(self._by_model, name, key, wanted=name in names)
        for demand, keys in self._by_demand.items():
            _set(keys, key, wanted=after is not None and meets(after, demand))


def _common(names: Iterable[str]) -> str:
    known = set(names)
    return known.pop() if len(known) == 1 else ""


def _open_slots(candidate: Candidate | None) -> int:
    return candidate.slots_free if candidate and candidate.open else 0


def _names(candidate: Candidate | None) -> Iterator[str]:
    return map(model_key, candidate.models if candidate else ())


def _file(index: dict[str, list[Key]], name: str, key: Key, *, wanted: bool) -> None:
    """As `_set`, in the list under `name`; there are no empty ones."""
    keys = index.setdefault(name, [])
    _set(keys, key, wanted=wanted)
    if not keys:
        del index[name]


def _set(keys: list[Key], key: Key, *, wanted: bool) -> None:
    """Whether `key` is in the sorted list `keys` from now on."""
    place = bisect_left(keys, key)
    there = place < len(keys) and keys[place] == key
    if wanted and not there:
        keys.insert(place, key)
    elif there and not wanted:
        del keys[place]
