"""Stalled engines are abandoned: late before the first token, sooner between tokens, always at some time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.dispatch.stalls import SLACK, StallLimits, StallTimer

LIMITS = StallLimits(connect_s=5.0, first_token_s=120.0, per_prompt_kb_s=2.0, idle_s=30.0)
START = 1000.0


def after(*events: tuple[float, bool], prompt_size: int = 0) -> StallTimer:
    """Return the timer after `events`: seconds from the start, and whether a token arrived."""
    timer = StallTimer(LIMITS, prompt_size, START)
    for at, token in events:
        timer.received(START + at, token=token)
    return timer


def abandoned_at(*events: tuple[float, bool], prompt_size: int = 0) -> float:
    """Return when the engine is abandoned if nothing more arrives, in seconds from the start."""
    return after(*events, prompt_size=prompt_size).scope.deadline - START


@pytest.mark.parametrize(("size", "limit_s"), [(0, 120.0), (1024, 122.0), (100 << 10, 320.0)])
def test_first_token_gets_time_for_the_prompt(size: int, limit_s: float) -> None:
    assert abandoned_at(prompt_size=size) == limit_s


def test_signs_of_life_do_not_delay_the_first_deadline() -> None:
    assert abandoned_at((1.0, False), (60.0, False), (119.0, False)) == 120.0
    assert abandoned_at((1.0, False), (319.0, False), prompt_size=100 << 10) == 320.0


def test_first_token_starts_the_idle_limit() -> None:
    assert abandoned_at((1.0, True)) == 1.0 + 30.0 * SLACK


def test_signs_of_life_between_tokens_extend_up_to_a_limit() -> None:
    assert abandoned_at((1.0, True), (20.0, False)) == 20.0 + 30.0 * SLACK
    signs = [(float(at), False) for at in range(2, 121)]
    assert abandoned_at((1.0, True), *signs) == 1.0 + 120.0


TIMES = st.lists(st.tuples(st.floats(0.0, 40.0), st.booleans()), max_size=60)


@given(TIMES)
def test_deadline_is_within_the_limits(steps: list[tuple[float, bool]]) -> None:
    timer, now, last_token = StallTimer(LIMITS, 0, START), START, None
    for step, token in steps:
        now += step
        if now > timer.scope.deadline:
            break  # abandoned
        timer.received(now, token=token)
        last_token = now if token else last_token
        deadline = timer.scope.deadline
        if last_token is None:
            assert deadline == START + LIMITS.first_token_s
        else:
            assert deadline <= last_token + LIMITS.first_token_s
            assert deadline >= min(now + LIMITS.idle_s, last_token + LIMITS.first_token_s)
            assert deadline <= now + LIMITS.idle_s * SLACK


def test_deadline_is_not_moved_by_every_token() -> None:
    deadlines = {abandoned_at(*[(index / 100, True) for index in range(1, count + 1)]) for count in range(1, 301)}
    assert len(deadlines) == 1


def test_description_says_how_long_nothing_arrived() -> None:
    assert after((2.0, True), (30.0, False)).describe(START + 42.0) == "no output for 40 s"
