"""Frames: what they show, and that no line is wider than the terminal."""

from collections.abc import Sequence
from dataclasses import replace
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.top.frame import Action, View, frame
from orchctl.top.lists import LISTS, bar
from orchctl.top.spans import Line, Style, colours_wanted, escape, line_width, plain_text
from tests.unit.orchctl.cluster import POOL
from tests.unit.orchctl.top.states import GPU, NODE, SECTIONS, TASK, situation

NAMES = st.text(st.sampled_from("ab1-é界가🦙e\u0301\u200d\x1b\n\t "), max_size=30)


PLAIN = View()


def shown(lines: Sequence[Line]) -> list[str]:
    return [plain_text(line) for line in lines]


def text(view: View = PLAIN, columns: int = 120, rows: int | None = None, **changed: object) -> str:
    return "\n".join(shown(frame(view, replace(situation(), **changed), columns, rows)))  # type: ignore[arg-type]


@given(
    NAMES,
    st.integers(0, 40),
    st.integers(1, 200),
    st.integers(1, 60),
    st.sampled_from([*(each.name for each in LISTS), "none"]),
    st.booleans(),
    st.booleans(),
    NAMES,
)
def test_no_line_is_wider_than_the_terminal(
    name: str, count: int, columns: int, rows: int, current: str, asks: bool, helps: bool, problem: str
) -> None:
    many = {
        **SECTIONS,
        "nodes": {str(index): {**NODE, "node_id": f"{name}{index}", "address": name} for index in range(count)},
        "pools": {str(index): {**POOL, "models_available": [name] * 3, "engine": name} for index in range(count)},
        "gpus": {str(index): {**GPU, "uuid": str(index), "name": name, "state": name} for index in range(count)},
        "tasks": {str(index): {**TASK, "model_ref": name} for index in range(count)},
    }
    view = View(current=current, question=Action("/x", f"drain {name}") if asks else None, help=helps, message=name)
    known = replace(situation(many), problem=problem, url=f"http://{name}")
    lines = frame(view, known, columns, rows)
    assert len(lines) <= rows
    assert max(map(line_width, lines)) <= columns
    assert not [span for line in lines for span in line if any(category(each) == "Cc" for each in span.text)]
    assert all(line_width(line) <= columns for line in frame(view, known, columns, None))


def test_frame_shows_every_list() -> None:
    lines = text().splitlines()
    assert lines[0] == "queen-rbee 9.9 at http://queen:8080"
    assert lines[1] == "1 running, 1 of 100 queued, 1/2 pools ready, 1/2 nodes online"
    rows = [line.split() for line in lines[2:]]
    assert rows[0] == ["NODE", "STATUS", "READY", "BUSY", "VERSION", "ADDRESS"]
    assert rows[1] == ["gpu-1", "online", "1/1", "1/4", "9.9", "http://gpu-1:9200"]
    assert rows[2][:2] == ["gpu-2", "draining"]
    assert rows[4][:3] == ["default@gpu-1", "ready", "1/4"]
    assert rows[6] == ["gpu-1:0", "[||||||||", "]", "60.0/80.0", "93%", "64", "C", "612", "W", "ok", "H100"]
    assert rows[8] == ["6f1c2a52", "running", "-", "1", "s", "-", "40", "5.0", "default", "interactive", "tiny"]
    assert rows[9][:8] == ["aaaaaaaa", "queued", "1st", "7", "s", "4", "s", "0"]


def test_narrow_terminal_keeps_the_most_important_columns() -> None:
    lines = text(columns=40).splitlines()
    assert next(line.split() for line in lines if line.startswith("GPU"))[:4] == ["GPU", "MEMORY", "GIB", "BUSY"]
    assert any(line.startswith("6f1c2a52  running") and "5.0" in line for line in lines)
    assert max(map(len, lines)) <= 40


def test_nodes_are_shown_only_where_there_are_some() -> None:
    assert "NODE" not in text(nodes=())


def test_empty_list_is_named() -> None:
    assert "TASKS: none" in text(tasks=())


def test_lost_connection_is_the_first_thing_shown() -> None:
    lines = text(problem="no answer", columns=60).splitlines()
    assert lines[0].startswith("connection lost: no answer; trying again")
    assert "gpu-1" in "".join(lines)


def test_footer_has_keys_question_or_message() -> None:
    assert text(rows=20).splitlines()[-1].startswith("q quit")
    assert text(View(message="done"), rows=20).splitlines()[-1] == "done"
    assert text(View(question=Action("/x", "drain node a")), rows=20).splitlines()[-1] == "drain node a? y/n"


def test_help_lists_every_key() -> None:
    lines = text(View(help=True), rows=20)
    assert all(key in lines for key in ("q ", "up, down", "tab", "s ", "d ", "c ", "? "))


def test_selected_element_is_marked_and_stays_visible() -> None:
    nodes = {str(index): {**NODE, "node_id": f"node-{index:02}"} for index in range(50)}
    view = View(current="nodes", selected={"nodes": "node-40"})
    lines = frame(view, situation({**SECTIONS, "nodes": nodes}), 80, 24)
    (marked,) = [line for line in lines if any(span.style is Style.REVERSE for span in line)]
    assert plain_text(marked).startswith("node-40")


def test_low_terminal_shows_only_the_current_list() -> None:
    lines = text(View(current="gpus"), rows=8).splitlines()
    assert any(line.startswith("GPU") for line in lines)
    assert not any(line.startswith(("NODE", "TASK")) for line in lines)


def test_order_changes_rows_and_is_named() -> None:
    gpus = {
        name: {**GPU, "uuid": name, "index": index, "utilization": busy}
        for index, (name, busy) in enumerate((("a", 1), ("b", 90)))
    }
    known = situation({**SECTIONS, "gpus": gpus})
    by_name, by_busy = (shown(frame(View("gpus", orders={"gpus": order}), known, 100, 24)) for order in (0, 2))
    first = [next(line for line in lines if line.startswith("gpu-1:")).split()[0] for lines in (by_name, by_busy)]
    assert first == ["gpu-1:0", "gpu-1:1"]
    assert any(line.endswith("by busy") for line in by_busy)


@pytest.mark.parametrize(
    ("used", "total", "style"),
    [(0, 0, Style.GOOD), (1, 10, Style.GOOD), (8, 10, Style.WARNING), (95, 100, Style.BAD), (20, 10, Style.BAD)],
)
def test_bar_is_coloured_by_its_share(used: int, total: int, style: Style) -> None:
    assert (len(bar(used, total).text), bar(used, total).style) == (12, style)


def test_colours_can_be_switched_off() -> None:
    line = [bar(1, 10)]
    assert escape(line, colours=True).startswith("\x1b[32m")
    assert escape(line, colours=False) == bar(1, 10).text
    assert colours_wanted({})
    assert colours_wanted({"NO_COLOR": ""})
    assert not colours_wanted({"NO_COLOR": "1"})
