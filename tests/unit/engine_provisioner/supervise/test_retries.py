"""Tries come ever less often, never in a loop, and a long good run clears the record."""

from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.failures import Retry
from engine_provisioner.supervise.retries import LONG_RUN_S, Attempts, delay_s, next_step


@given(st.sampled_from([Retry.BACKOFF, Retry.MENDING, Retry.COSTLY]), st.integers(0, 10_000))
def test_each_wait_is_at_least_as_long_as_the_one_before_and_bounded(retry: Retry, failed: int) -> None:
    now, then = delay_s(retry, failed), delay_s(retry, failed + 1)
    assert now is not None
    assert then is not None
    assert 0.5 <= now <= then <= 3600


def test_an_engine_that_crashed_once_is_back_at_once_and_one_that_always_crashes_each_minute() -> None:
    assert [delay_s(Retry.BACKOFF, failed) for failed in (1, 2, 3, 8, 50)] == [0.5, 1, 2, 60, 60]


def test_what_must_be_fetched_anew_is_fetched_anew_each_hour_at_most_in_the_end() -> None:
    assert delay_s(Retry.COSTLY, 1) == 60
    assert delay_s(Retry.COSTLY, 50) == 3600


def test_what_cannot_help_is_not_tried() -> None:
    assert delay_s(Retry.NEVER, 1) is None
    assert "restart engine-provisioner" in next_step(None, watched=False)


def test_a_long_run_clears_the_record_and_a_short_one_does_not() -> None:
    assert Attempts(7).after_failure(LONG_RUN_S) == Attempts(1)
    assert Attempts(7).after_failure(LONG_RUN_S - 1) == Attempts(8)


def test_the_operator_is_told_what_happens_next() -> None:
    assert next_step(60.0, watched=True) == "tried again in 60 s, or when the file changes"
