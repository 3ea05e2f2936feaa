"""Delays grow and are bounded, and a long run resets the count of failures."""

from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.failures import Retry
from engine_provisioner.supervise.retries import LONG_RUN_S, FailureCount, delay_s, next_step


@given(st.sampled_from([Retry.BACKOFF, Retry.AFTER_FIX, Retry.REFETCH]), st.integers(0, 10_000))
def test_delays_grow_and_are_bounded(retry: Retry, failed: int) -> None:
    now, then = delay_s(retry, failed), delay_s(retry, failed + 1)
    assert now is not None
    assert then is not None
    assert 0.5 <= now <= then <= 3600


def test_backoff_starts_at_half_a_second_and_ends_at_a_minute() -> None:
    assert [delay_s(Retry.BACKOFF, failed) for failed in (1, 2, 3, 8, 50)] == [0.5, 1, 2, 60, 60]


def test_refetch_is_delayed_from_a_minute_to_an_hour() -> None:
    assert delay_s(Retry.REFETCH, 1) == 60
    assert delay_s(Retry.REFETCH, 50) == 3600


def test_permanent_failure_is_not_retried() -> None:
    assert delay_s(Retry.NEVER, 1) is None
    assert "restart engine-provisioner" in next_step(None, watched=False)


def test_only_a_long_run_resets_the_count() -> None:
    assert FailureCount(7).after_failure(LONG_RUN_S) == FailureCount(1)
    assert FailureCount(7).after_failure(LONG_RUN_S - 1) == FailureCount(8)


def test_next_step_mentions_watched_files() -> None:
    assert next_step(60.0, watched=True) == "tried again in 60 s, or when the file changes"
