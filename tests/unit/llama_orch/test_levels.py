"""RUST_LOG in its own syntax, as people write it."""

import logging
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.telemetry.levels import NAMES, TRACE, parse_levels

LEVELS = st.sampled_from(sorted(NAMES))
SEGMENT = st.from_regex(r"[a-z_][a-z0-9_-]{0,8}", fullmatch=True)
TARGETS = st.lists(SEGMENT, min_size=1, max_size=3).map("::".join)


@pytest.mark.parametrize(
    ("text", "default", "loggers"),
    [
        ("info", 20, ()),
        ("WARN", 30, ()),
        ("info,queen-rbee=debug", 20, (("queen_rbee", 10),)),
        ("info, pool_managerd::handoff = trace", 20, (("pool_managerd.handoff", TRACE),)),
        ("queen-rbee=debug", 20, (("queen_rbee", 10),)),
        ("error,queen_rbee", 40, (("queen_rbee", TRACE),)),
        ("off", 100, ()),
        (",info,,", 20, ()),
    ],
)
def test_what_people_write(text: str, default: int, loggers: tuple[tuple[str, int], ...]) -> None:
    levels = parse_levels(text)
    assert (levels.default, levels.loggers, str(levels)) == (default, loggers, text)


@given(LEVELS, st.lists(st.tuples(TARGETS, LEVELS), max_size=4), st.randoms())
def test_directives_count_in_any_order(default: str, targets: list[tuple[str, str]], order: Random) -> None:
    directives = [default, *(f"{target}={level}" for target, level in targets)]
    order.shuffle(directives)
    levels = parse_levels(",".join(directives))
    expected = sorted((target.replace("::", ".").replace("-", "_"), NAMES[level]) for target, level in targets)
    assert levels.default == NAMES[default]
    assert sorted(levels.loggers) == expected


@pytest.mark.parametrize("text", ["queen=loud", "=debug", "a=b=debug", "x y", "queen=", "1"])
def test_what_is_not_understood_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        parse_levels(text)


@given(st.text())
def test_anything_else_is_either_understood_or_a_value_error(text: str) -> None:
    try:
        levels = parse_levels(text)
    except ValueError:
        return
    assert all(isinstance(name, str) for name, _level in levels.loggers)
    assert levels.default >= TRACE


def test_levels_are_pythons_own() -> None:
    assert (NAMES["warn"], NAMES["error"]) == (logging.WARNING, logging.ERROR)
