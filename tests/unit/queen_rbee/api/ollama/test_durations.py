"""keep_alive as Ollama's clients write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.keep_alive import LONGEST_S, keep_alive_s
from queen_rbee.api.ollama.durations import keep_alive_of

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2m30.5s", 150.5),
        ("90", 90),
        (30, 30),
        (0, 0),
        ("0", 0),
        ("0s", 0),
        (0.5, 0.5),
        ("500us", 0.0005),
        (-1, -1),
        ("-1", -1),
        ("-1m", -1),
        (-300.5, -1),
        ("99999h", -1),
        (1e12, -1),
    ],
)
def test_durations_of_go_are_read(text: str | float, seconds: float) -> None:
    assert keep_alive_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 m", "5x", "m", "1h-3m", "5m" * 40, "1e3", "inf", "٣m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        keep_alive_of(text)


@given(st.lists(st.tuples(st.integers(0, 500), st.sampled_from(sorted(UNITS))), min_size=1, max_size=4))
def test_parts_of_a_duration_add_up(parts: list[tuple[int, str]]) -> None:
    found = keep_alive_of("".join(f"{number}{unit}" for number, unit in parts))
    assert found == pytest.approx(sum(number * UNITS[unit] for number, unit in parts))


@given(st.one_of(st.floats(-1e15, 1e15), st.integers(-(10**15), 10**15)))
def test_tasks_accept_every_result(number: float) -> None:
    seconds = keep_alive_s(keep_alive_of(number))
    assert (seconds is None) == (number < 0 or number > LONGEST_S)
