"""Translation of OpenAI chunks into Anthropic's events, and of those into a message."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.api.v1.messages.chat_request import chat_body
from queen_rbee.api.v1.messages.events import MessageEvent
from queen_rbee.api.v1.messages.message_builder import INVALID_INPUT, MessageBuilder
from queen_rbee.api.v1.messages.request import MessagesRequest, parse
from queen_rbee.api.v1.messages.stop_reasons import AnswerOptions
from queen_rbee.api.v1.messages.translator import ChunkTranslator
from tests.unit.queen_rbee.messages_examples import QUESTION, body, call, chunk, names, objects, usage

OPTIONS = AnswerOptions("m", max_tokens=100, stop_sequences=("END",))


def translate(chunks: Iterable[str], options: AnswerOptions = OPTIONS) -> list[MessageEvent]:
    """Return all events of an answer that consists of `chunks`."""
    translator = ChunkTranslator("1", options)
    found = [event for one in chunks for event in translator.chunk(one)]
    assert translator.valid
    return [*found, *translator.end(0, 0)]


def data_of(events: Iterable[MessageEvent]) -> list[dict[str, Any]]:
    return [event.data for event in events]


def build_message(events: Iterable[MessageEvent]) -> dict[str, Any]:
    found = MessageBuilder()
    found.add(events)
    return found.message()


def message(chunks: Iterable[str], options: AnswerOptions = OPTIONS) -> dict[str, Any]:
    return build_message(translate(chunks, options))


def test_text_is_streamed_as_documented():
    chunks = [
        chunk({"role": "assistant", "content": None}),
        chunk({"content": "Hello"}),
        chunk({"content": "!"}),
        chunk(finish="stop"),
        usage(25, 15, 5),
    ]
    counts = {"cache_creation_input_tokens": 0}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    nothing = counts | {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}
    assert data_of(translate(chunks)) == [
        {"type": "message_start", "message": head | {"stop_reason": None, "stop_sequence": None, "usage": nothing}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "!"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": counts | {"input_tokens": 20, "cache_read_input_tokens": 5, "output_tokens": 15},
        },
        {"type": "message_stop"},
    ]


def test_event_frame_has_its_type_as_name():
    assert MessageEvent({"type": "message_stop"}).frame == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    assert (
        MessageEvent({"type": "x", "text": "a\nb Zürich"}).frame
        == 'event: x\ndata: {"type":"x","text":"a\\nb Zürich"}\n\n'.encode()
    )


def test_tool_use_is_streamed_as_documented():
    chunks = [
        chunk({"content": "I look."}),
        chunk(call(0, id="c1", name="get_weather")),
        chunk(call(0, '{"place": ')),
        chunk(call(0, '"Bern"}')),
        chunk(finish="tool_calls"),
    ]
    assert data_of(translate(chunks))[3:-1] == [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"place": '},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"Bern"}'}},
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {
                "input_tokens": 0,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 0,
            },
        },
    ]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_precede_text_and_have_empty_signature(field: str):
    events = data_of(translate([chunk({field: "hm"}), chunk({"content": "so"})]))
    assert [event["type"] for event in events[1:6]] == [
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
    ]
    assert events[1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert events[2]["delta"] == {"type": "thinking_delta", "thinking": "hm"}
    assert events[3]["delta"] == {"type": "signature_delta", "signature": ""}
    assert message([chunk({field: "hm"}), chunk({"content": "so"})])["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "so"},
    ]


def test_hidden_thoughts_are_dropped():
    content = message([chunk({"reasoning": "hm"}), chunk({"content": "so"})], AnswerOptions("m", 100, thoughts=False))[
        "content"
    ]
    assert content == [{"type": "text", "text": "so"}]


@pytest.mark.parametrize(
    ("chunks", "reason", "sequence"),
    [
        ([chunk(finish="stop")], "end_turn", None),
        ([chunk({"content": "x"})], "end_turn", None),
        ([chunk(finish="length"), usage(1, 100)], "max_tokens", None),
        ([chunk(finish="length"), usage(1, 99)], "model_context_window_exceeded", None),
        ([chunk(finish="stop", stop_reason="END")], "stop_sequence", "END"),
        ([chunk(finish="stop", stop_reason="other")], "end_turn", None),
        ([chunk(finish="stop", stop_reason=128009)], "end_turn", None),
        ([chunk(finish="stop_sequence")], "stop_sequence", "END"),
        ([chunk(call(0, "{}", id="a", name="n")), chunk(finish="tool_calls")], "tool_use", None),
        ([chunk(call(0, "{}", id="a", name="n")), chunk(finish="stop")], "tool_use", None),
        ([chunk(call(0, '{"a', id="a", name="n")), chunk(finish="length"), usage(1, 100)], "max_tokens", None),
        ([chunk({"refusal": "No."}), chunk(finish="stop")], "refusal", None),
        ([chunk(finish="content_filter")], "refusal", None),
    ],
)
def test_stop_reason(chunks: Sequence[str], reason: str, sequence: str | None):
    found = message(chunks)
    assert (found["stop_reason"], found["stop_sequence"]) == (reason, sequence)


def test_matched_stop_of_several_is_not_guessed():
    found = message([chunk(finish="stop_sequence")], AnswerOptions("m", 100, stop_sequences=("A", "B")))
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", None)


def test_own_counts_apply_without_engine_usage():
    translator = ChunkTranslator("1", OPTIONS)
    found = build_message([*translator.chunk(chunk({"content": "x"})), *translator.end(7, 1)])
    assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (7, 1)


def test_counts_of_first_chunk_are_in_message_start():
    first = json.dumps({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0}})
    (head,) = data_of(ChunkTranslator("1", OPTIONS).chunk(first))
    assert head["message"]["usage"]["input_tokens"] == 9


def test_message_start_is_sent_once():
    translator = ChunkTranslator("1", OPTIONS)
    events = [
        *translator.begin(),
        *translator.begin(),
        *translator.chunk(chunk({"content": "x"})),
        *translator.end(0, 0),
    ]
    assert [event.data["type"] for event in events].count("message_start") == 1


def test_empty_answer_has_no_content():
    found = message([])
    assert (found["content"], found["stop_reason"]) == ([], "end_turn")


@pytest.mark.parametrize("broken", ["", "null", "[]", '{"choices": 7}', '{"choices": [{"delta": "x"}]}', "<html>"])
def test_invalid_chunk_is_detected(broken: str):
    translator = ChunkTranslator("1", OPTIONS)
    assert translator.chunk(broken) == []
    assert not translator.valid


def test_call_without_index_or_id_and_with_object_is_accepted():
    piece = {"tool_calls": [{"function": {"name": "n", "arguments": {"a": 1}}}]}
    (block,) = message([chunk(piece)])["content"]
    assert block == {"type": "tool_use", "id": "toolu_1_0", "name": "n", "input": {"a": 1}}


@pytest.mark.parametrize("arguments", ["not json", '{"a": ', "[1]", "7"])
def test_input_that_is_no_object_is_kept_as_text(arguments: str):
    (block,) = message([chunk(call(0, arguments, id="a", name="n"))])["content"]
    assert block["input"] == {INVALID_INPUT: arguments}


def test_call_without_arguments_has_empty_input():
    events = translate([chunk(call(0, id="a", name="n"))])
    assert build_message(events)["content"] == [{"type": "tool_use", "id": "a", "name": "n", "input": {}}]
    assert "content_block_delta" not in {event.data["type"] for event in events}


def test_second_call_is_streamed_once_first_is_complete():
    translator = ChunkTranslator("1", OPTIONS)
    translator.chunk(chunk(call(0, '{"a": 1}', id="a", name="n")))
    found = data_of(translator.chunk(chunk(call(1, '{"b": ', id="b", name="n"))))
    assert [event["type"] for event in found] == ["content_block_stop", "content_block_start", "content_block_delta"]
    assert found[2] == {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": '{"b": '},
    }


@pytest.mark.parametrize("broken", ["", '{"a": '])
def test_incomplete_call_delays_others_until_the_end(broken: str):
    first, second = call(0, broken, id="a", name="n"), call(1, '{"b": 1}', id="b", name="n")
    content = message([chunk(first), chunk(second), chunk(finish="tool_calls")])["content"]
    assert [block["id"] for block in content] == ["a", "b"]
    assert content[1]["input"] == {"b": 1}


def test_fragment_of_a_closed_call_is_invalid():
    translator = ChunkTranslator("1", OPTIONS)
    translator.chunk(chunk(call(0, '{"a": ', id="a", name="n")))
    translator.chunk(chunk({"content": "by the way"}))
    translator.chunk(chunk(call(0, "1}")))
    assert not translator.valid


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, list[tuple[str, str, dict[str, Any]]], list[str]]:
    """Draw an answer: text, calls as (id, name, input), and chunks with the calls interleaved."""
    text = draw(st.text(max_size=30))
    calls = [(f"c{index}", draw(names), draw(objects)) for index in range(draw(st.integers(0, 3)))]
    chunks = [chunk({"content": piece}) for piece in pieces(draw, text)]
    parts = [
        [call(i, id=c[0], name=c[1]), *(call(i, p) for p in pieces(draw, json.dumps(c[2])))]
        for i, c in enumerate(calls)
    ]
    chunks += [chunk(part.pop(0)) for part in parts]
    while rest := [part for part in parts if part]:
        chunks.append(chunk(draw(st.sampled_from(rest)).pop(0)))
    return text, calls, [*chunks, chunk(finish="tool_calls" if calls else "stop")]


def pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(answers())
def test_blocks_never_overlap(answer: tuple[str, Any, list[str]]):
    events = data_of(translate(answer[2]))
    assert [event["type"] for event in events[:1] + events[-2:]] == ["message_start", "message_delta", "message_stop"]
    open_index, started = None, 0
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert (open_index, event["index"]) == (None, started)
            open_index, started = started, started + 1
        else:
            assert event["index"] == open_index
            open_index = None if event["type"] == "content_block_stop" else open_index
    assert open_index is None


@given(answers())
def test_answer_sent_back_reaches_model_unchanged(answer: tuple[str, Any, list[str]]):
    text, calls, chunks = answer
    content = message(chunks)["content"]
    asked = {**QUESTION, "messages": [*QUESTION["messages"], {"role": "assistant", "content": content}]}  # type: ignore[misc]
    chat: dict[str, Any] = chat_body(parse(MessagesRequest, body(asked)))
    last = chat["messages"][-1]
    if not text and not calls:
        assert last["role"] == "user"
        return
    assert last["content"] == text
    assert [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in last.get("tool_calls", ())
    ] == calls
