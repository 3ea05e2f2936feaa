"""The limits of a key are kept, and the time of a retry is true. Pure functions."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.keys.limits import DAY_S, Bucket, Limits, Used, closed, exceeded, leaked, opened, spent, wait_s

NOON = 20_000 * DAY_S + 43_200.0
RATES = st.integers(1, 100_000)
AMOUNTS = st.integers(0, 200_000)
STEPS = st.lists(st.tuples(st.floats(0, 120), st.integers(1, 5000)), min_size=1, max_size=40)


@given(RATES, AMOUNTS, st.floats(0, 1e6), AMOUNTS)
def test_bucket_has_amount_after_its_wait_and_not_before(rate: int, used: int, now: float, amount: int) -> None:
    bucket = Bucket(used, now)
    lasts_s = wait_s(bucket, amount, rate, now)
    assert wait_s(bucket, amount, rate, now + lasts_s + 1e-3) == pytest.approx(0, abs=1e-2)
    if lasts_s > 0.1:
        assert wait_s(bucket, amount, rate, now + lasts_s / 2) > 0


@given(RATES, STEPS)
def test_no_minute_has_more_than_twice_the_rate(rate: int, steps: list[tuple[float, int]]) -> None:
    bucket, now, admitted = Bucket(), 0.0, []
    for pause_s, wanted in steps:
        now += pause_s
        amount = min(wanted, rate)
        if wait_s(bucket, amount, rate, now) == 0:
            bucket = spent(bucket, amount, rate, now)
            admitted.append((now, amount))
    for begin, _amount in admitted:
        assert sum(amount for time, amount in admitted if begin <= time < begin + 60) <= 2 * rate + 1e-6


@given(RATES, AMOUNTS, st.floats(0, 1e5), st.floats(0, 1e5))
def test_bucket_only_empties_while_nothing_is_used(rate: int, used: int, first: float, later: float) -> None:
    bucket = Bucket(used, 0.0)
    assert 0 <= leaked(bucket, rate, first + later) <= leaked(bucket, rate, first) <= used


LIMITS = st.builds(
    Limits,
    concurrency=st.none() | st.integers(1, 5),
    requests_per_minute=st.none() | st.integers(1, 100),
    tokens_per_minute=st.none() | st.integers(1, 10_000),
    tokens_per_day=st.none() | st.integers(1, 20_000),
    tokens_total=st.none() | st.integers(1, 50_000),
)


@given(LIMITS, STEPS)
def test_admitted_tasks_are_within_every_limit(limits: Limits, steps: list[tuple[float, int]]) -> None:
    used, now = Used(), 0.0
    reserved: list[int] = []
    for pause_s, tokens in steps:
        now += pause_s
        if exceeded(limits, used, tokens, now, NOON + now, 1.0):
            if reserved:
                used = closed(limits, used, reserved[0], reserved.pop(0), now, NOON + now)
            continue
        assert limits.concurrency is None or used.open < limits.concurrency
        assert limits.tokens_total is None or used.tokens_total < limits.tokens_total
        assert limits.tokens_per_day is None or used.tokens_today < limits.tokens_per_day
        used = opened(limits, used, tokens, now)
        reserved.append(tokens)
    assert (used.open, used.reserved) == (len(reserved), sum(reserved))


@given(LIMITS, st.integers(0, 5000), st.integers(0, 5000), st.floats(0, 1e4))
def test_task_of_no_tokens_leaves_only_its_request(limits: Limits, reserved: int, used: int, now: float) -> None:
    before = opened(limits, Used(), reserved, now)
    after = closed(limits, before, reserved, used, now, NOON)
    assert (after.open, after.reserved, after.tokens_total) == (0, 0, used)
    again = closed(limits, opened(limits, Used(), reserved, now), reserved, 0, now, NOON)
    assert replace(again, day=0, requests=Bucket()) == replace(Used(), tokens=replace(again.tokens))
    assert limits.tokens_per_minute is None or leaked(again.tokens, limits.tokens_per_minute, now) == 0


def test_used_up_day_lasts_until_midnight() -> None:
    limits = Limits(tokens_per_day=100)
    used = closed(limits, opened(limits, Used(), 10, 0.0), 10, 100, 0.0, NOON)
    found = exceeded(limits, used, 1, 0.0, NOON, 1.0)
    assert found is not None
    assert (found.limit, found.wait_s) == ("tokens_per_day", DAY_S / 2)
    assert exceeded(limits, used, 1, 0.0, NOON + DAY_S / 2, 1.0) is None


def test_used_up_total_lasts_for_ever() -> None:
    limits = Limits(tokens_total=100)
    used = closed(limits, opened(limits, Used(), 10, 0.0), 10, 100, 0.0, NOON)
    found = exceeded(limits, used, 1, 0.0, NOON, 1.0)
    assert found is not None
    assert (found.limit, found.wait_s) == ("tokens_total", None)


def test_longest_limit_decides_when_to_retry() -> None:
    limits = Limits(concurrency=1, requests_per_minute=1)
    used = opened(limits, Used(), 10, 0.0)
    found = exceeded(limits, used, 10, 0.0, NOON, 3.0)
    assert found is not None
    assert (found.limit, found.wait_s) == ("requests_per_minute", 60.0)


def test_request_larger_than_rate_is_admitted_alone() -> None:
    limits = Limits(tokens_per_minute=100)
    assert exceeded(limits, Used(), 5000, 0.0, NOON, 1.0) is None
    used = opened(limits, Used(), 5000, 0.0)
    found = exceeded(limits, used, 5000, 0.0, NOON, 1.0)
    assert found is not None
    assert found.wait_s == pytest.approx(60)
