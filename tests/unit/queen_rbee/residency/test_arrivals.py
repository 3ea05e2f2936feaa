"""When a model will be loaded: from its last load, its size, and what comes before it."""

from dataclasses import replace

import pytest
from hypothesis import given

from queen_rbee.residency.arrivals import BYTES_PER_S, START_S, UNLOAD_S, arrival_of, expected_load_s
from queen_rbee.residency.situation import Phase, Situation, Wait
from tests.unit.queen_rbee.residency.test_plan import GIB, NOW, pool, situation, situations


def seconds(name: str, found: Situation, since: float = NOW) -> float | None:
    """In how many seconds the pool will be loaded for a new task, or one that has waited since then."""
    arrival = arrival_of(Wait(frozenset([(name, "")]), since), found)
    return arrival[1] if arrival else None


def test_load_takes_as_long_as_the_last_one():
    assert seconds("a", situation(pool("a", load_s=30.0))) == 30.0


def test_running_load_counts_from_its_beginning():
    loading = pool("a", Phase.LOADING, load_s=30.0, loading_at=NOW - 10)
    assert seconds("a", situation(loading)) == 20.0
    overdue = replace(loading, loading_at=NOW - 40)
    assert seconds("a", situation(overdue)) == 4.0


def test_pool_that_was_never_loaded_is_judged_by_its_size():
    new = pool("a", need=4)
    assert expected_load_s(new, [new]) == START_S + 4 * GIB / BYTES_PER_S
    other = pool("b", need=8, load_s=16.0)
    assert expected_load_s(new, [new, other]) == START_S + 8.0


def test_loads_that_come_first_are_added():
    running = pool("b", Phase.LOADING, load_s=30.0, loading_at=NOW - 10)
    found = situation(pool("a", load_s=5.0), running, pool("c", load_s=7.0), waits="c a", total=40)
    assert seconds("a", found, since=NOW) == 20.0 + 7.0 + 5.0
    assert seconds("a", replace(found, waits=[]), since=NOW) == 20.0 + 5.0


def test_eviction_of_an_idle_pool_is_added():
    found = situation(pool("a", load_s=5.0), pool("b", Phase.LOADED, need=12))
    assert seconds("a", found) == UNLOAD_S + 5.0


def test_patience_with_a_busy_pool_is_added():
    found = situation(pool("a", load_s=5.0), pool("b", Phase.LOADED, need=12, leases=1))
    assert seconds("a", found) == 10.0 + UNLOAD_S + 5.0


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.FAILED])
def test_no_time_is_told_while_a_model_is_fetched(phase):
    assert seconds("a", situation(pool("a", phase, load_s=5.0))) is None


def test_no_time_is_told_while_a_pinned_pool_is_in_the_way():
    assert seconds("a", situation(pool("a"), pool("b", Phase.LOADED, need=12, pinned=True))) is None


@given(situations())
def test_loaded_pools_are_there_and_others_take_time(found):
    for wait in found.waits:
        pools = [each for each in found.residents if each.key in wait.pools and not each.closed]
        arrival = arrival_of(wait, found)
        if any(each.phase is Phase.LOADED for each in pools):
            assert arrival is not None
            assert arrival[1] == 0.0
        elif arrival:
            assert arrival[0] in found.residents
            assert arrival[1] > 0.0
