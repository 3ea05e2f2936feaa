"""Predictions follow from measured service times, and stay within reason whatever is measured."""

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.estimates import LONGEST_MS, ServiceTimes, backoff_ms, predicted_start_ms

SECONDS = st.floats(0, 1e6)


@given(st.lists(SECONDS, min_size=1, max_size=50))
def test_the_mean_stays_between_the_shortest_and_the_longest(held):
    times = ServiceTimes()
    for seconds in held:
        times = times.ended(seconds)
    assert min(held) - 1e-6 <= times.mean_s <= max(held) * (1 + 1e-9) + 1e-6
    assert times.count == len(held)


def test_a_fleet_that_becomes_slower_is_judged_by_what_it_does_now():
    times = ServiceTimes()
    for _ in range(100):
        times = times.ended(1.0)
    for _ in range(50):
        times = times.ended(10.0)
    assert times.mean_s > 9.0


@given(st.integers(0, 100), st.integers(0, 64), SECONDS)
def test_with_a_free_slot_for_everybody_the_task_starts_at_once(position, total, mean_s):
    assert predicted_start_ms(position, total, position + 1, ServiceTimes(mean_s, 1)) == 0


@given(st.integers(0, 10_000), st.integers(0, 64), SECONDS)
def test_predictions_grow_with_the_position_and_are_bounded(position, total, mean_s):
    times = ServiceTimes(mean_s, 1)
    here = predicted_start_ms(position, total, 0, times)
    assert 0 <= here <= predicted_start_ms(position + 1, total, 0, times) <= LONGEST_MS


def test_two_slots_of_two_seconds_free_one_every_second():
    times = ServiceTimes(2.0, 10)
    assert [predicted_start_ms(position, 2, 0, times) for position in range(3)] == [1000, 2000, 3000]


@given(st.integers(0, 64), SECONDS)
def test_backoff_is_never_zero_and_never_beyond_an_hour(total, mean_s):
    assert 1 <= backoff_ms(total, ServiceTimes(mean_s, 1)) <= LONGEST_MS
