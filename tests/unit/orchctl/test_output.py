"""Output: the status line, control characters, and the results of tasks."""

import io
import json
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.http.client.sse import ServerSentEvent
from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError
from orchctl.output import StatusLine, print_error, print_note, write, write_json
from orchctl.submit.display import TaskDisplay, format_result
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


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.lists(st.text(st.characters(codec="ascii", categories=("L", "N", "Zs")), max_size=100), min_size=1))
def test_status_line_is_replaced_and_cleared(texts: list[str]) -> None:
    with mock.patch("sys.stderr", FakeTerminal()) as terminal:
        line = StatusLine()
        for text in texts:
            line.show(text)
            assert screen(terminal.getvalue()) == [f"orchctl: {text}"[:79].rstrip()]
        line.clear()
        line.clear()
    assert screen(terminal.getvalue()) == [""]


def test_status_line_is_cut_at_terminal_width() -> None:
    with mock.patch("sys.stderr", FakeTerminal()) as terminal:
        StatusLine().show("x" * 200)
    assert screen(terminal.getvalue()) == [f"orchctl: {'x' * 70}"]


def test_status_line_needs_terminal_and_no_quiet() -> None:
    with mock.patch("sys.stderr", io.StringIO()) as pipe:
        StatusLine().show("x")
        print_note("x")
    with mock.patch("sys.stderr", FakeTerminal()) as terminal:
        StatusLine(quiet=True).show("x")
    assert pipe.getvalue() == terminal.getvalue() == ""


def test_control_characters_reach_pipe_but_not_terminal() -> None:
    text = "a\x1b[2Jb\r\n\tc\x9b5mé"
    with mock.patch("sys.stdout", FakeTerminal()) as terminal:
        write(text)
    with mock.patch("sys.stdout", io.StringIO()) as pipe:
        write(text)
    assert terminal.getvalue() == "a\N{REPLACEMENT CHARACTER}[2Jb\n\tc\N{REPLACEMENT CHARACTER}5mé"
    assert pipe.getvalue() == text


def test_errors_notes_and_json_have_no_control_characters() -> None:
    with mock.patch("sys.stderr", FakeTerminal()) as terminal:
        print_error(CommandError("a\x1b[2J\nb", "c\x9bd", ExitStatus.DATA))
        print_note("\x1bn")
        StatusLine().show("\x1bl")
    with mock.patch("sys.stdout", FakeTerminal()) as out:
        write_json({"t": "\x1b\x9b"})
    assert terminal.getvalue() == "orchctl: a?[2J\norchctl: b\norchctl: c?d\norchctl: ?n\n\rorchctl: ?l".replace(
        "?", "\ufffd"
    )
    assert out.getvalue() == '{"t": "\\u001b\ufffd"}\n'


def test_embedding_is_one_vector_per_line_in_input_order() -> None:
    lines = format_result(json.dumps(VECTORS), ["a", "b"]).splitlines()
    assert [json.loads(line) for line in lines] == [[1.0, 2.0], [0.5, -1e-07]]


def test_rerank_is_table_with_best_document_first() -> None:
    text = format_result(json.dumps(RANKING), ["good one", "bad\none"])
    assert text == "SCORE  INDEX  DOCUMENT\n4.5    0      good one\n-3.25  1      bad one"
    assert format_result(json.dumps(RANKING), ["only"]).splitlines()[2].split() == ["-3.25", "1", "-"]


@pytest.mark.parametrize("data", ['{"x": 1}', '{"data": [{"embedding": "AAAA", "index": 0}]}'])
def test_unknown_result_is_printed_unchanged(data: str) -> None:
    assert format_result(data, []) == data


def test_lost_connection_is_shown_unless_mid_answer() -> None:
    with mock.patch("sys.stderr", FakeTerminal()) as terminal, mock.patch("sys.stdout", io.StringIO()):
        display = TaskDisplay(as_json=False)
        display.connection_lost()
        assert screen(terminal.getvalue()) == ["orchctl: connection lost, reconnecting"]
        display.event(ServerSentEvent("token", '{"t": "half"}'))
        display.connection_lost()
        assert screen(terminal.getvalue()) == [""]


def test_result_is_table_or_engines_json() -> None:
    events = stream(("metrics", {"queue_depth": 0, "pool_id": "p"}), ("result", RANKING), ("end", END))
    words = ("submit", "--workload", "rerank", "q", "good", "bad")
    with serve(submitting(events)) as queen:
        result = run(*words, "--url", queen.url)
        lines = run(*words, "--json", "--url", queen.url).out.splitlines()
    assert (result.status, result.out.split()[-3:]) == (0, ["-3.25", "1", "bad"])
    assert json.loads(lines[1]) == {"event": "result", **RANKING}
