"""Answers of engines as pieces and lines of Ollama's."""

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.api.ollama.embeddings import cut, vectors_of
from queen_rbee.api.ollama.lines import figures, last_line, line, load_line
from queen_rbee.api.ollama.pieces import AnswerEnd, ChatTranslator, EngineTimings, Piece, TextTranslator, joined
from queen_rbee.tasks.measurements import Measurements
from tests.unit.queen_rbee.messages_examples import call
from tests.unit.queen_rbee.scripted_openai import delta

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


def translated(chunks: list[dict[str, Any]], *, thoughts: bool = True) -> tuple[list[Piece], ChatTranslator]:
    translator = ChatTranslator("id", thoughts=thoughts)
    return [*(translator.add(json.dumps(chunk)) for chunk in chunks), translator.end()], translator


def names(pieces: list[Piece]) -> list[tuple[str, Any]]:
    calls: list[Any] = [call for piece in pieces for call in piece.calls]
    return [(each["function"]["name"], each["function"]["arguments"]) for each in calls]


def test_text_and_thoughts_are_kept_apart() -> None:
    chunks = [
        delta(role="assistant"),
        delta(reasoning_content="hm"),
        delta(content="He"),
        delta(content="y"),
        delta("stop"),
    ]
    pieces, translator = translated(chunks)
    assert joined(pieces) == Piece("Hey", "hm")
    assert translator.ending.done_reason == "stop"
    assert joined(translated(chunks, thoughts=False)[0]) == Piece("Hey")


def test_calls_are_sent_whole_and_in_order() -> None:
    chunks = [
        delta(**call(0, id="c1", name="weather")),
        delta(**call(0, '{"place": ')),
        delta(**call(0, '"Bern"}')),
        delta(**call(1, "", id="c2", name="time")),
        delta("tool_calls"),
    ]
    pieces, translator = translated(chunks)
    assert [len(piece.calls) for piece in pieces] == [0, 0, 0, 1, 1, 0]
    assert names(pieces) == [("weather", {"place": "Bern"}), ("time", {})]
    assert [each["function"]["index"] for each in joined(pieces).calls] == [0, 1]  # type: ignore[call-overload,index]
    assert translator.ending.done_reason == "stop"


def test_calls_of_an_answer_cut_off_are_marked() -> None:
    pieces, translator = translated([delta(**call(0, '{"pla', id="c1", name="weather")), delta("length")])
    assert names(pieces) == [("weather", {"INVALID_JSON": '{"pla'})]
    assert translator.ending.done_reason == "length"


@given(
    st.text(max_size=40),
    st.lists(st.integers(0, 40), max_size=6),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
)
def test_pieces_do_not_depend_on_the_chunks(text: str, cuts: list[int], arguments: dict[str, str]) -> None:
    def parts(whole: str) -> list[str]:
        places = sorted({0, len(whole), *(min(each, len(whole)) for each in cuts)})
        return [whole[begin:end] for begin, end in pairwise(places)]

    chunks = [delta(content=part) for part in parts(text)]
    chunks += [delta(**call(0, id="c", name="f"))]
    chunks += [delta(**call(0, part)) for part in parts(json.dumps(arguments))]
    pieces, _translator = translated([*chunks, delta("stop")])
    assert joined(pieces).text == text
    assert names(pieces) == [("f", arguments)]


def test_log_probabilities_are_passed_on() -> None:
    entry = {"token": "He", "logprob": -0.5, "bytes": [72, 101], "top_logprobs": [{"token": "He", "logprob": -0.5}]}
    chunk = delta(content="He")
    chunk["choices"][0]["logprobs"] = {"content": [{**entry, "id": 5}]}  # type: ignore[index]
    pieces, _translator = translated([chunk])
    assert list(joined(pieces).logprobs) == [entry]


def test_text_completion_is_joined() -> None:
    translator = TextTranslator()
    texts = [translator.add(json.dumps({"choices": [{"text": word, "finish_reason": None}]})) for word in ("a", "b")]
    translator.add(json.dumps({"choices": [{"text": "", "finish_reason": "length"}], "timings": {"prompt_ms": 2}}))
    assert joined(texts).text == "ab"
    assert (translator.ending.done_reason, translator.ending.timings) == ("length", EngineTimings(prompt_ms=2))


@pytest.mark.parametrize("chunk", ["", "[]", '{"choices": 3}', '{"choices": [{"delta": {"content": 3}}]}'])
def test_unreadable_chunk_makes_the_answer_invalid(chunk: str) -> None:
    translator = ChatTranslator("id")
    assert translator.add(chunk) == Piece()
    assert not translator.ending.valid


def test_lines_have_the_shape_of_their_path() -> None:
    piece = Piece("Hey", "hm", ({"function": {}},))
    assert line("chat", "m", NOON, piece) == {
        "model": "m",
        "created_at": "2026-12-01T12:00:00Z",
        "message": {"role": "assistant", "content": "Hey", "thinking": "hm", "tool_calls": [{"function": {}}]},
        "done": False,
    }
    assert line("generate", "m", NOON, Piece("Hey"))["response"] == "Hey"
    assert load_line("chat", "m", NOON, "load")["message"] == {"role": "assistant", "content": ""}
    assert load_line("generate", "m", NOON, "unload")["done_reason"] == "unload"


def measured() -> Measurements:
    found = Measurements(10.0)
    found.started_at, found.sent_at, found.first_token_at, found.ended_at = 11.0, 11.5, 12.0, 14.0
    found.tokens_in, found.tokens_out = 5, 7
    return found


def test_durations_are_nanoseconds() -> None:
    assert figures(measured()) == {
        "total_duration": 4_000_000_000,
        "load_duration": 1_000_000_000,
        "prompt_eval_count": 5,
        "prompt_eval_duration": 500_000_000,
        "eval_count": 7,
        "eval_duration": 2_000_000_000,
    }
    own = figures(measured(), EngineTimings(prompt_ms=1.5, predicted_ms=2.25))
    assert (own["prompt_eval_duration"], own["eval_duration"]) == (1_500_000, 2_250_000)
    assert set(figures(Measurements(10.0)).values()) == {0}


def test_last_line_has_reason_and_figures() -> None:
    end = last_line("generate", "m", NOON, Piece(), AnswerEnd(finish_reason="length"), measured())
    assert (end["done"], end["done_reason"], end["response"], end["eval_count"]) == (True, "length", "", 7)


def test_embeddings_are_in_order_and_cut() -> None:
    document = {"data": [{"index": 1, "embedding": [1, 0]}, {"index": 0, "embedding": [3, 4, 12]}]}
    assert vectors_of(json.dumps(document), 2) == [[0.6, 0.8], [1, 0]]
    assert vectors_of(json.dumps(document), None)[0] == [3, 4, 12]
    assert cut([0.0, 0.0, 1.0], 2) == [0.0, 0.0]
    for wrong in ("", "{}", '{"data": [{"embedding": "x"}]}'):
        with pytest.raises(ValueError):
            vectors_of(wrong, None)
