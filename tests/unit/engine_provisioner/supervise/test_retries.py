"""Delays grow and are bounded, a long run resets the count of failures, and a restart storm ends the attempts."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.failures import Retry
from engine_provisioner.supervise.retries import (
    LONG_RUN_S,
    STORM_FAILURES,
    STORM_RUN_S,
    STORM_WITHIN_S,
    Failures,
    delay_s,
    next_step,
)

JITTER = st.floats(0, 1)


def storm(*, every_s: float, ready_for_s: float = 0.0) -> Failures:
    """Return the failures of an engine that has ended ten times, `every_s` seconds apart."""
    times = [number * every_s for number in range(STORM_FAILURES)]
    return reduce(lambda found, now_s: found.after(Retry.RESTART, now_s, ready_for_s), times, Failures())


@given(st.sampled_from([Retry.BACKOFF, Retry.RESTART, Retry.AFTER_FIX, Retry.REFETCH]), st.integers(0, 10_000), JITTER)
def test_delays_grow_and_are_bounded(retry: Retry, failed: int, jitter: float) -> None:
    now, then = delay_s(retry, Failures(failed), jitter), delay_s(retry, Failures(failed + 1), jitter)
    assert now is not None
    assert then is not None
    assert 1 <= now <= then <= 3600


@given(st.integers(1, 10_000), JITTER)
def test_backoff_is_from_a_second_to_a_minute(failed: int, jitter: float) -> None:
    delay = delay_s(Retry.BACKOFF, Failures(failed), jitter)
    assert delay is not None
    assert 1 <= delay <= 60


def test_backoff_doubles_and_has_jitter() -> None:
    assert [delay_s(Retry.BACKOFF, Failures(failed), 0) for failed in (1, 2, 3, 7, 50)] == [1, 2, 4, 48, 48]
    assert [delay_s(Retry.BACKOFF, Failures(failed), 1) for failed in (1, 2, 50)] == [1.25, 2.5, 60]


def test_refetch_is_delayed_from_a_minute_to_an_hour() -> None:
    assert delay_s(Retry.REFETCH, Failures(1), 0.5) == 60
    assert delay_s(Retry.REFETCH, Failures(50), 0.5) == 3600


def test_permanent_failure_is_not_retried() -> None:
    assert delay_s(Retry.NEVER, Failures(1), 0) is None
    assert "restart engine-provisioner" in next_step(None, False, Failures(1))


def test_only_a_long_run_resets_the_count() -> None:
    assert Failures(7).after(Retry.RESTART, 0, LONG_RUN_S).in_row == 1
    assert Failures(7).after(Retry.RESTART, 0, LONG_RUN_S - 1).in_row == 8


def test_engine_that_fails_ten_times_is_not_started_again() -> None:
    failures = storm(every_s=STORM_WITHIN_S / STORM_FAILURES)
    assert failures.storm
    assert delay_s(Retry.RESTART, failures, 0) is None
    step = next_step(None, True, failures)
    assert step.startswith("not tried again after 10 failures within 10 minutes, unless")
    assert step.endswith("or when the file changes")


@pytest.mark.parametrize(
    "failures",
    [
        storm(every_s=STORM_WITHIN_S / (STORM_FAILURES - 1) + 1),
        storm(every_s=1, ready_for_s=STORM_RUN_S),
    ],
    ids=["slow", "healthy in between"],
)
def test_rare_failures_are_no_storm(failures: Failures) -> None:
    assert not failures.storm
    assert delay_s(Retry.RESTART, failures, 0) is not None


def test_failures_without_an_engine_are_no_storm() -> None:
    failures = Failures()
    for second in range(3 * STORM_FAILURES):
        failures = failures.after(Retry.BACKOFF, second, 0)
    assert not failures.storm


@given(st.lists(st.tuples(st.sampled_from(Retry), st.floats(0, 900), st.floats(0, 900)), max_size=60))
def test_memory_of_failures_is_bounded(events: list[tuple[Retry, float, float]]) -> None:
    failures, now_s = Failures(), 0.0
    for retry, passed_s, ready_for_s in events:
        now_s += passed_s
        failures = failures.after(retry, now_s, ready_for_s)
        assert len(failures.recent) <= STORM_FAILURES
        assert all(now_s - STORM_WITHIN_S < time <= now_s for time in failures.recent)


def test_next_step_has_delay_files_and_count() -> None:
    assert next_step(60.0, True, Failures(1)) == "tried again in 60 s, or when the file changes"
    assert next_step(8.4, False, Failures(5)) == "tried again in 8 s (failed 5 times)"
