"""Parsing of RUST_LOG."""

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
        ("error,queen-rbee", 40, (("queen_rbee", TRACE),)),
        ("error,pool_managerd::handoffs", 40, (("pool_managerd.handoffs", TRACE),)),
        ("off", 100, ()),
        (",info,,", 20, ()),
    ],
)
def test_common_directives_are_parsed(text: str, default: int, loggers: tuple[tuple[str, int], ...]) -> None:
    levels = parse_levels(text)
    assert (levels.default, levels.loggers, str(levels)) == (default, loggers, text)


@given(LEVELS, st.lists(st.tuples(TARGETS, LEVELS), max_size=4), st.randoms())
def test_directive_order_does_not_matter(default: str, targets: list[tuple[str, str]], order: Random) -> None:
    directives = [default, *(f"{target}={level}" for target, level in targets)]
    order.shuffle(directives)
    levels = parse_levels(",".join(directives))
    expected = sorted((target.replace("::", ".").replace("-", "_"), NAMES[level]) for target, level in targets)
    assert levels.default == NAMES[default]
    assert sorted(levels.loggers) == expected


@pytest.mark.parametrize(
    ("text", "target", "level"),
    [
        ("info,queen-rbee=debug", "queen_rbee", 10),
        ("info,queen-rbee=debug", "queen_rbee.sources.handoffs", 10),
        ("info,queen-rbee=debug", "pool_managerd.handoffs", 20),
        ("info,pool_managerd=debug", "pool_managerd.handoffs", 10),
        ("info,pool_managerd::handoff=trace", "pool_managerd.handoffs", TRACE),
        ("info,pool_managerd::handoff=trace", "pool_managerd.health", 20),
        ("trace,pool-managerd::handoffs=warn,pool-managerd=debug", "pool_managerd.handoffs", 30),
        ("trace,pool-managerd=debug,pool-managerd::handoffs=warn", "pool_managerd.handoffs", 30),
        ("info,queen_rbee=debug,queen-rbee=error", "queen_rbee.task", 40),
    ],
)
def test_longest_matching_prefix_applies(text: str, target: str, level: int) -> None:
    assert parse_levels(text).of(target) == level


@given(LEVELS, st.lists(st.tuples(TARGETS, LEVELS), max_size=4), TARGETS)
def test_no_logger_is_below_the_lowest_level(default: str, directives: list[tuple[str, str]], target: str) -> None:
    levels = parse_levels(",".join([default, *(f"{name}={level}" for name, level in directives)]))
    asked = {levels.default, *(level for _name, level in levels.loggers)}
    assert levels.of(target) in asked
    assert levels.lowest == min(asked)


@pytest.mark.parametrize("text", ["loud", "inof", "queen=loud", "=debug", "a=b=debug", "x y", "queen=", "1"])
def test_invalid_directive_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        parse_levels(text)


@given(st.text())
def test_any_text_parses_or_raises_value_error(text: str) -> None:
    try:
        levels = parse_levels(text)
    except ValueError:
        return
    assert all(isinstance(name, str) for name, _level in levels.loggers)
    assert levels.default >= TRACE


def test_levels_match_python() -> None:
    assert (NAMES["warn"], NAMES["error"]) == (logging.WARNING, logging.ERROR)
