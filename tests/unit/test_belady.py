"""The fewest loads are those of the best of all ways to evict."""

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from tests.bench.belady import fewest_loads


def tried(requests: tuple[int, ...], capacity: int) -> int:
    """The fewest loads, by trying every eviction."""

    @cache
    def from_here(place: int, held: frozenset[int]) -> int:
        if place == len(requests):
            return 0
        wanted = requests[place]
        if wanted in held:
            return from_here(place + 1, held)
        evictions = held if len(held) >= capacity else {None}
        return 1 + min(from_here(place + 1, held - {victim} | {wanted}) for victim in evictions)

    return from_here(0, frozenset())


@given(st.lists(st.integers(0, 4), max_size=10), st.integers(1, 3))
def test_no_eviction_does_better(requests, capacity):
    assert fewest_loads(requests, capacity) == tried(tuple(requests), capacity)
