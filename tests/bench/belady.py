"""The fewest loads that a sequence of requests needs, if the future is known."""

from collections.abc import Hashable, Sequence
from math import inf


def fewest_loads(requests: Sequence[Hashable], capacity: int) -> int:
    """Return how often a cache of `capacity` models loads one if it evicts the one that is needed last (Belady)."""
    next_use: list[float] = []
    upcoming: dict[Hashable, float] = {}
    for place in range(len(requests) - 1, -1, -1):
        next_use.append(upcoming.get(requests[place], inf))
        upcoming[requests[place]] = place
    next_use.reverse()
    loads, cached = 0, dict[Hashable, float]()
    for request, following in zip(requests, next_use, strict=True):
        if request not in cached:
            loads += 1
            if len(cached) >= capacity:
                del cached[max(cached, key=lambda each: cached[each])]
        cached[request] = following
    return loads
