"""How long an engine may be silent: long for the first token, shorter between tokens, and never for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.dispatch.silence import SLACK, Limits, Silence

LIMITS = Limits(connect_s=5.0, first_token_s=120.0, per_prompt_kb_s=2.0, idle_s=30.0)
START = 1000.0


def after(*events: tuple[float, bool], prompt_size: int = 0) -> Silence:
    """The silence after what came at some times (seconds from the start), each a token or not."""
    silence = Silence(LIMITS, prompt_size, START)
    for at, token in events:
        silence.heard(START + at, token=token)
    return silence


def left_at(*events: tuple[float, bool], prompt_size: int = 0) -> float:
    """When the engine is left if nothing more comes, in seconds from the start."""
    return after(*events, prompt_size=prompt_size).scope.deadline - START


@pytest.mark.parametrize(("size", "limit_s"), [(0, 120.0), (1024, 122.0), (100 << 10, 320.0)])
def test_the_first_token_is_given_time_for_the_prompt(size: int, limit_s: float) -> None:
    assert left_at(prompt_size=size) == limit_s


def test_signs_of_life_do_not_prolong_the_wait_for_the_first_token() -> None:
    assert left_at((1.0, False), (60.0, False), (119.0, False)) == 120.0
    assert left_at((1.0, False), (319.0, False), prompt_size=100 << 10) == 320.0


def test_the_first_token_starts_the_shorter_limit() -> None:
    assert left_at((1.0, True)) == 1.0 + 30.0 * SLACK


def test_signs_of_life_between_tokens_prolong_the_wait_but_not_for_ever() -> None:
    assert left_at((1.0, True), (20.0, False)) == 20.0 + 30.0 * SLACK
    signs = [(float(at), False) for at in range(2, 121)]
    assert left_at((1.0, True), *signs) == 1.0 + 120.0


TIMES = st.lists(st.tuples(st.floats(0.0, 40.0), st.booleans()), max_size=60)


@given(TIMES)
def test_an_engine_is_left_within_the_limits_and_never_before(steps: list[tuple[float, bool]]) -> None:
    silence, now, last_token = Silence(LIMITS, 0, START), START, None
    for step, token in steps:
        now += step
        if now > silence.scope.deadline:
            break  # it has been left
        silence.heard(now, token=token)
        last_token = now if token else last_token
        deadline = silence.scope.deadline
        if last_token is None:
            assert deadline == START + LIMITS.first_token_s
        else:
            assert deadline <= last_token + LIMITS.first_token_s
            assert deadline >= min(now + LIMITS.idle_s, last_token + LIMITS.first_token_s)
            assert deadline <= now + LIMITS.idle_s * SLACK


def test_a_deadline_is_not_moved_for_each_token() -> None:
    deadlines = {left_at(*[(index / 100, True) for index in range(1, count + 1)]) for count in range(1, 301)}
    assert len(deadlines) == 1


def test_it_is_told_how_long_nothing_came() -> None:
    assert after((2.0, True), (30.0, False)).words(START + 42.0) == "nothing of the answer for 40 s"
