"""Text formatting: tables that fit the terminal, and the notation of numbers, times and queue positions."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.tables import age, duration, format_table, optional, ordinal, queue_position
from orchctl.widths import width
from tests.unit.orchctl.commands.test_pools import LIST, POOL
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import reply, serve
from tests.unit.orchctl.terminal import terminal


@given(st.lists(st.lists(st.text(min_size=1, max_size=9), min_size=3, max_size=3), min_size=1))
def test_table_columns_align_with_header(rows: list[list[str]]) -> None:
    rows = [
        [
            "".join(character if character.isalnum() and width(character) == 1 else "x" for character in text)
            for text in row
        ]
        for row in rows
    ]
    first, *others = format_table(rows).split("\n")
    starts = [0, *(index for index in range(2, len(first)) if first[index - 2 : index] == "  " and first[index] != " ")]
    for line, row in zip([first, *others], rows, strict=True):
        assert [line[start:].split("  ")[0].rstrip() for start in starts] == row


def test_queue_position_format() -> None:
    assert queue_position(2, 3400) == "3rd in the queue, about 3 s"
    assert queue_position(0, 10) == "1st in the queue, about 1 s"
    assert queue_position(20, 600_000) == "21st in the queue, about 10 min"
    assert queue_position(1, None) == "2nd in the queue, no pool for it is ready"


def test_optional_numbers_format() -> None:
    assert [optional(value) for value in (None, 3, 0.25, 2.0)] == ["-", "3", "0.25", "2"]


def test_columns_fit_widest_cell_without_trailing_space() -> None:
    assert format_table([("A", "LONG", "C"), ("long", "b", "")]) == "A     LONG  C\nlong  b"


CELLS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=70)


@given(st.integers(1, 9).flatmap(lambda size: st.lists(st.lists(CELLS, min_size=size, max_size=size), min_size=2)))
def test_table_fits_60_columns(rows: list[list[str]]) -> None:
    assert max(map(len, format_table(rows, 60).splitlines())) <= 60


@given(
    st.lists(st.lists(st.text("ab가界e\u0301", min_size=1, max_size=50), min_size=3, max_size=3), min_size=2),
    st.integers(40, 120),
)
def test_wide_characters_keep_tables_within_columns(rows: list[list[str]], columns: int) -> None:
    lines = format_table(rows, columns).splitlines()
    assert max(map(width, lines)) <= max([columns, *(width(row[0]) for row in rows)])


def test_columns_align_after_wide_characters() -> None:
    shown = format_table([("POOL", "STATE"), ("日本", "ready"), ("e\u0301e\u0301", "failed")])
    assert shown.splitlines() == ["POOL  STATE", "日本  ready", "e\u0301e\u0301    failed"]


def test_wide_column_is_cut_but_never_the_first() -> None:
    name = "a" * 36
    shown = format_table([("POOL", "STATE", "MODELS"), (name, "ready", "file:/srv/models/a-long-name.gguf")], 60)
    assert shown.splitlines()[1] == f"{name}  ready  file:/srv/mode\u2026"


def test_table_too_wide_to_cut_is_stacked() -> None:
    header = [f"TITLE{number}" for number in range(9)]
    rows = [header, [f"{'x' * 50} {number}" for number in range(9)], ["y"] * 9]
    first, second = format_table(rows, 60).split("\n\n")
    assert first.splitlines()[:2] == ["TITLE0  " + "x" * 50 + " 0", "TITLE1  " + "x" * 50 + " 1"]
    assert second.splitlines()[-1] == "TITLE8  y"


def test_table_in_pipe_has_full_width() -> None:
    models = [f"file:/srv/models/{'m' * 100}.gguf"]
    with serve({"GET /v2/pools": [reply(200, {**LIST, "pools": [{**POOL, "models_available": models}]})]}) as queen:
        assert models[0] in run("pools", "--url", queen.url).out


def test_table_on_terminal_has_its_width() -> None:
    models = [f"file:/srv/models/{'m' * 100}.gguf"]
    script = {"GET /v2/pools": [reply(200, {**LIST, "pools": [{**POOL, "models_available": models}]})]}
    with serve(script) as queen, terminal("pools", "--url", queen.url, columns=60) as tty:
        assert tty.end() == 0
    assert max(map(len, tty.screen)) == 60


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (21, "21st"), (112, "112th")],
)
def test_ordinal_format(number: int, text: str) -> None:
    assert ordinal(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-5, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_duration_uses_largest_unit_of_at_least_two(seconds: float, text: str) -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    assert duration(seconds) == age(now - timedelta(seconds=seconds), now) == text
