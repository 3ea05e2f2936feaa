"""How things are shown: tables, results, and the line that is kept up to date."""

import io
import json
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.http.client.sse import ServerSentEvent
from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError
from orchctl.output import StatusLine, emit, emit_json, explain, note
from orchctl.submit.display import Display, result_text
from orchctl.tables import cell, place, table
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import END, serve, stream, submitting
from tests.unit.orchctl.terminal import screen

VECTORS = {
    "object": "list",
    "model": "m",
    "data": [
        {"object": "embedding", "index": 1, "embedding": [0.5, -1e-07]},
        {"object": "embedding", "index": 0, "embedding": [1.0, 2.0]},
    ],
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}
RANKING = {
    "object": "list",
    "results": [{"index": 1, "relevance_score": -3.25}, {"index": 0, "relevance_score": 4.5}],
    "usage": {"prompt_tokens": 9, "total_tokens": 9},
}


class Watched(io.StringIO):
    """Standard error, or output, that is a terminal."""

    def isatty(self) -> bool:
        return True


@given(st.lists(st.text(st.characters(codec="ascii", categories=("L", "N", "Zs")), max_size=100), min_size=1))
def test_a_line_that_is_kept_up_to_date_leaves_no_trace(texts: list[str]) -> None:
    with mock.patch("sys.stderr", Watched()) as terminal:
        line = StatusLine()
        for text in texts:
            line.show(text)
            assert screen(terminal.getvalue()) == [f"orchctl: {text}"[:79].rstrip()]
        line.clear()
        line.clear()
    assert screen(terminal.getvalue()) == [""]


def test_a_line_is_cut_where_it_would_wrap() -> None:
    with mock.patch("sys.stderr", Watched()) as terminal:
        StatusLine().show("x" * 200)
    assert screen(terminal.getvalue()) == [f"orchctl: {'x' * 70}"]


def test_nothing_of_it_goes_into_a_pipe_or_to_somebody_who_wants_quiet() -> None:
    with mock.patch("sys.stderr", io.StringIO()) as pipe:
        StatusLine().show("x")
        note("x")
    with mock.patch("sys.stderr", Watched()) as terminal:
        StatusLine(quiet=True).show("x")
    assert pipe.getvalue() == terminal.getvalue() == ""


def test_a_terminal_is_not_told_what_it_would_obey_but_a_pipe_gets_it_all() -> None:
    text = "a\x1b[2Jb\r\n\tc\x9b5mé"
    with mock.patch("sys.stdout", Watched()) as terminal:
        emit(text)
    with mock.patch("sys.stdout", io.StringIO()) as pipe:
        emit(text)
    assert terminal.getvalue() == "a\N{REPLACEMENT CHARACTER}[2Jb\n\tc\N{REPLACEMENT CHARACTER}5mé"
    assert pipe.getvalue() == text


def test_words_and_json_for_a_terminal_command_it_as_little() -> None:
    with mock.patch("sys.stderr", Watched()) as terminal:
        explain(CommandError("a\x1b[2J\nb", "c\x9bd", ExitStatus.DATA))
        note("\x1bn")
        StatusLine().show("\x1bl")
    with mock.patch("sys.stdout", Watched()) as out:
        emit_json({"t": "\x1b\x9b"})
    assert terminal.getvalue() == "orchctl: a?[2J\norchctl: b\norchctl: c?d\norchctl: ?n\n\rorchctl: ?l".replace(
        "?", "\ufffd"
    )
    assert out.getvalue() == '{"t": "\\u001b\ufffd"}\n'


@given(st.lists(st.lists(st.text(min_size=1, max_size=9), min_size=3, max_size=3), min_size=1))
def test_columns_begin_where_their_header_does(rows: list[list[str]]) -> None:
    rows = [["".join(character if character.isalnum() else "x" for character in text) for text in row] for row in rows]
    first, *others = table(rows).split("\n")
    starts = [0, *(index for index in range(2, len(first)) if first[index - 2 : index] == "  " and first[index] != " ")]
    for line, row in zip([first, *others], rows, strict=True):
        assert [line[start:].split("  ")[0].rstrip() for start in starts] == row


def test_a_place_in_the_queue_reads_as_words() -> None:
    assert place(2, 3400) == "3rd in the queue, about 3 s"
    assert place(0, 10) == "1st in the queue, about 1 s"
    assert place(20, 600_000) == "21st in the queue, about 10 min"
    assert place(1, None) == "2nd in the queue, no pool for it is ready"


def test_numbers_read_short() -> None:
    assert [cell(value) for value in (None, 3, 0.25, 2.0)] == ["-", "3", "0.25", "2"]


def test_an_embedding_is_a_vector_a_line_in_the_order_of_the_inputs() -> None:
    lines = result_text(json.dumps(VECTORS), ["a", "b"]).splitlines()
    assert [json.loads(line) for line in lines] == [[1.0, 2.0], [0.5, -1e-07]]


def test_a_rerank_is_its_documents_the_best_first() -> None:
    text = result_text(json.dumps(RANKING), ["good one", "bad\none"])
    assert text == "SCORE  INDEX  DOCUMENT\n4.5    0      good one\n-3.25  1      bad one"
    assert result_text(json.dumps(RANKING), ["only"]).splitlines()[2].split() == ["-3.25", "1", "-"]


@pytest.mark.parametrize("data", ['{"x": 1}', '{"data": [{"embedding": "AAAA", "index": 0}]}'])
def test_a_result_that_is_neither_is_shown_as_it_is(data: str) -> None:
    assert result_text(data, []) == data


def test_a_lost_connection_is_told_where_no_answer_is_cut() -> None:
    with mock.patch("sys.stderr", Watched()) as terminal, mock.patch("sys.stdout", io.StringIO()):
        display = Display(as_json=False)
        display.lost()
        assert screen(terminal.getvalue()) == ["orchctl: the connection is lost; trying again"]
        display.event(ServerSentEvent("token", '{"t": "half"}'))
        display.lost()
        assert screen(terminal.getvalue()) == [""]


def test_results_are_shown_and_with_json_they_are_the_engines_own() -> None:
    events = stream(("metrics", {"queue_depth": 0, "pool_id": "p"}), ("result", RANKING), ("end", END))
    words = ("submit", "--workload", "rerank", "q", "good", "bad")
    with serve(submitting(events)) as queen:
        result = run(*words, "--url", queen.url)
        lines = run(*words, "--json", "--url", queen.url).out.splitlines()
    assert (result.status, result.out.split()[-3:]) == (0, ["-3.25", "1", "bad"])
    assert json.loads(lines[1]) == {"event": "result", **RANKING}
