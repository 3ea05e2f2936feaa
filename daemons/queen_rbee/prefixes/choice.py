"""Whether a task goes to a replica that has computed its prompt's beginning before: a pure decision."""

from collections.abc import Mapping, Sequence

from queen_rbee.pools.candidates import Candidate, ReplicaKey
from queen_rbee.pools.placement import FILTER_LIMIT, find
from queen_rbee.prefixes.index import Matches

LOAD_WEIGHT = 2.0
"""A replica that has the whole prompt is left if half of its slots are busy and another replica is idle; one that has
half of the prompt, if a quarter are."""
CROWD_WEIGHT = 2.0
"""Likewise for conversations per slot: those that only share a system prompt spread over the replicas, since each slot
keeps the cache of one."""


def best_match(
    candidates: Sequence[Candidate], matches: Matches, length: int, conversations: Mapping[ReplicaKey, int]
) -> ReplicaKey | None:
    """Return the open replica that saves most, if any does; the strategy chooses otherwise.

    `candidates` are sorted by key. `length` is that of the prompt, `conversations` how many each replica holds. What a
    replica saves is weighed against how much busier and more crowded it is than others; among more than FILTER_LIMIT
    replicas, than others of those that have a part of the prompt. A conversation does not leave its replica because
    that is crowded.
    """
    if not matches.lengths:
        return None
    if len(candidates) > FILTER_LIMIT:
        candidates = [found for key in matches.lengths if (found := find(candidates, key))]
    open_replicas = [candidate for candidate in candidates if candidate.open]

    def load(candidate: Candidate) -> float:
        return candidate.leased / candidate.slots_total

    def crowd(candidate: Candidate) -> float:
        return conversations.get(candidate.key, 0) / candidate.slots_total

    least_load = min(map(load, open_replicas), default=0.0)
    least_crowd = min(map(crowd, open_replicas), default=0.0)

    def gain(candidate: Candidate) -> float:
        saved = matches.lengths.get(candidate.key, 0) / max(length, 1)
        crowded = 0.0 if candidate.key == matches.home else crowd(candidate) - least_crowd
        return saved - LOAD_WEIGHT * (load(candidate) - least_load) - CROWD_WEIGHT * crowded

    best = max(open_replicas, key=lambda candidate: (gain(candidate), candidate.key), default=None)
    return best.key if best and gain(best) > 0 else None
