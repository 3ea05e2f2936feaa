"""Predictions follow the measurements, and stay within bounds whatever is measured."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from queen_rbee.dispatch.estimates import (
    INITIAL_MEAN_S,
    MAX_MS,
    MIN_STARTS,
    Capacity,
    DrainRate,
    ServiceTimes,
    backoff_ms,
    capacity_of,
    on_time_probability,
    predicted_start_ms,
)

SECONDS = st.floats(0, 1e6)
POSITIONS = st.integers(0, 10_000)
CAPACITIES = st.builds(Capacity, st.integers(0, 64), st.integers(0, 64), st.floats(0, 1e6))
TIMES = st.builds(ServiceTimes, SECONDS, st.floats(0, 1e9), SECONDS, st.floats(0, 1e5), st.integers(0, 100))


@given(st.lists(SECONDS, min_size=1, max_size=50))
def test_mean_stays_between_shortest_and_longest(held):
    times = ServiceTimes()
    for seconds in held:
        times = times.with_task(seconds)
    assert min(held) - 1e-6 <= times.mean_s <= max(held) * (1 + 1e-9) + 1e-6
    assert times.variance >= 0
    assert times.count == len(held)


def test_mean_follows_a_fleet_that_slows_down():
    times = ServiceTimes()
    for _ in range(100):
        times = times.with_task(1.0)
    for _ in range(50):
        times = times.with_task(10.0)
    assert times.mean_s > 9.0


def test_expected_time_scales_decoding_but_not_the_prompt():
    times = ServiceTimes()
    for _ in range(5):
        times = times.with_task(3.0, 2.0, 10)  # 2 s for the prompt, 0.1 s per token
    assert times.expected_s(None) == pytest.approx(3.0)
    assert times.expected_s(100) == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("expected", "limit", "tokens"), [(None, None, None), (7, None, 7), (7, 5, 7), (None, 5, 5), (None, 50, 10)]
)
def test_expected_tokens_default_to_the_mean_within_limit(expected, limit, tokens):
    assert ServiceTimes().with_task(1.0, 0.0, 10).expected_tokens(expected, limit) == tokens


@given(POSITIONS, st.floats(0, 1e6))
def test_task_with_a_free_slot_starts_at_once(position, rate):
    assert predicted_start_ms(position, Capacity(position + 1, position + 1, rate)) == 0


@given(POSITIONS, CAPACITIES)
def test_predicted_start_grows_with_position_up_to_a_bound(position, capacity):
    here, behind = predicted_start_ms(position, capacity), predicted_start_ms(position + 1, capacity)
    if not capacity.slots_total:
        assert here is behind is None
    else:
        assert here is not None
        assert behind is not None
        assert 0 <= here <= behind <= MAX_MS


def test_two_slots_of_two_seconds_free_one_per_second():
    capacity = capacity_of([(2, 0, ServiceTimes(2.0, count=10))])
    assert [predicted_start_ms(position, capacity) for position in range(3)] == [1000, 2000, 3000]


def test_slots_of_a_fast_pool_count_for_more():
    slow, fast = ServiceTimes(10.0, count=10), ServiceTimes(1.0, count=10)
    assert capacity_of([(1, 0, slow), (1, 1, fast)]) == Capacity(2, 1, 1.1)


@given(POSITIONS, CAPACITIES, TIMES, st.one_of(st.none(), st.integers(1, 10_000)), st.floats(-10, 1e7))
def test_probability_never_falls_with_more_time(position, capacity, times, tokens, left_s):
    here = on_time_probability(position, capacity, times, tokens, left_s)
    assert 0.0 <= here <= on_time_probability(position, capacity, times, tokens, left_s + 1.0) <= 1.0


@given(POSITIONS, st.floats(0.1, 100))
def test_probability_never_rises_with_position(position, left_s):
    times, capacity = ServiceTimes(1.0, 0.0, count=10), Capacity(4, 0, 4.0)
    assume(position < 1000)
    nearer = on_time_probability(position, capacity, times, None, left_s)
    assert nearer >= on_time_probability(position + 1, capacity, times, None, left_s) - 1e-9


def test_probability_is_half_if_mean_equals_time_left():
    times = ServiceTimes(2.0, 0.25, count=10)
    assert on_time_probability(0, Capacity(1, 1, 0.5), times, None, 2.0) == pytest.approx(0.5)
    assert on_time_probability(0, Capacity(1, 1, 0.5), times, None, 4.0) > 0.99
    assert on_time_probability(0, Capacity(1, 1, 0.5), times, None, 0.5) < 0.01


def test_probability_is_one_without_measurements():
    assert on_time_probability(50, Capacity(1, 0, 1.0), ServiceTimes(), None, 0.001) == 1.0
    assert on_time_probability(0, Capacity(1, 0, 1.0), ServiceTimes(), None, 0.0) == 0.0
    assert on_time_probability(0, Capacity(1, 0, 1.0), ServiceTimes(count=9), None, math.inf) == 1.0


def test_drain_rate_is_measured_while_tasks_wait():
    drain = DrainRate()
    for number in range(MIN_STARTS + 1):
        drain.record_start(number * 0.5, backlog=True)
    assert drain.gap_s(number * 0.5, Capacity(1, 0, 9.0)) == pytest.approx(0.5)


def test_drain_rate_ignores_time_without_backlog():
    drain = DrainRate()
    for number in range(MIN_STARTS + 1):
        drain.record_start(number * 0.5, backlog=True)
    drain.record_start(4.5, backlog=False)
    for number in range(MIN_STARTS):
        drain.record_start(1000.0 + number * 0.5, backlog=True)
    assert drain.gap_s(1004.0, Capacity(1, 0, 9.0)) < 0.6


def test_drain_rate_falls_while_the_queue_is_stuck():
    drain = DrainRate()
    for number in range(MIN_STARTS + 1):
        drain.record_start(number * 0.5, backlog=True)
    assert drain.gap_s(104.0, Capacity(1, 0, 9.0)) == pytest.approx(50.0)


@pytest.mark.parametrize(("rate", "gap_s"), [(2.0, 0.5), (0.0, INITIAL_MEAN_S), (1e-200, MAX_MS / 1000)])
def test_drain_rate_falls_back_to_service_times(rate, gap_s):
    assert DrainRate().gap_s(0.0, Capacity(1, 0, rate)) == gap_s


@given(st.floats(0, 1e9))
def test_backoff_is_between_1_ms_and_an_hour(seconds):
    assert 1 <= backoff_ms(seconds) <= MAX_MS
