"""Arguments for journalctl, and the parsing of its lines."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.journal.entries import TEXT_LIMIT, TOO_LONG, parse_entry
from orchctl.journal.journalctl import Query
from tests.unit.orchctl.imitation_tools import ENTRY


@given(st.lists(st.text(st.characters(min_codepoint=32), min_size=1, max_size=40), min_size=1, max_size=4))
def test_every_value_is_one_word_after_the_options(values: list[str]) -> None:
    argv = Query([(f"POOL_ID={value}",) for value in values]).argv()
    words = argv[argv.index("--") + 1 :]
    assert [word for word in words if word != "+"] == [f"POOL_ID={value}" for value in values]
    assert words.count("+") == len(values) - 1


@pytest.mark.parametrize("match", ["--since=now", "POOL_ID=a\nb", "POOL_ID=", "pool_id=a", "/dev/sda", "POOL_ID=a\0"])
def test_word_that_is_no_match_is_refused(match: str) -> None:
    with pytest.raises(ValueError, match="invalid match"):
        Query([(match,)]).argv()


def test_time_follow_and_limit_become_options() -> None:
    argv = Query([("A=b",)], datetime(2026, 11, 30, tzinfo=UTC), follow=True, limit=5).argv()
    assert {"--follow", "--lines=5", "--since=@1795996800.000000"} <= set(argv)


@given(st.text())
def test_any_line_is_an_entry_or_none(line: str) -> None:
    assert parse_entry(line) is None


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_any_field_becomes_text(value: object) -> None:
    entry = parse_entry(json.dumps({**ENTRY, "MESSAGE": value, "PRIORITY": value, "POOL_ID": value}))
    assert entry is not None
    assert len(entry.message) <= TEXT_LIMIT
    assert "\n" not in entry.line()


@pytest.mark.parametrize(
    ("value", "message"),
    [("plain", "plain"), ([104, 105, 27], "hi\x1b"), (None, TOO_LONG), (["first", "second"], "first"), ([], "")],
)
def test_notations_of_journalctl_are_decoded(value: object, message: str) -> None:
    entry = parse_entry(json.dumps({**ENTRY, "MESSAGE": value}))
    assert entry is not None
    assert entry.message == message
