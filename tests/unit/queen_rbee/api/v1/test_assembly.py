"""Chunks of a stream are assembled into the engine's own document."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.api.v1.assembly import AnswerAssembly
from tests.unit.queen_rbee.scripted_openai import CHAT, FIXED, TIMINGS, USAGE, delta


def assembled(*chunks: Any) -> dict[str, Any]:
    assembly = AnswerAssembly()
    for chunk in chunks:
        assembly.add_json(json.dumps(chunk).encode())
    return assembly.document()


def message(*chunks: Any) -> dict[str, Any]:
    found: dict[str, Any] = assembled(*chunks)["choices"][0]["message"]
    return found


def call(index: int, **function: object) -> dict[str, Any]:
    """Return a fragment of a tool call. As from engines, id and type come with the name."""
    named = {"id": f"call-{index}", "type": "function"} if "name" in function else {}
    return {"index": index, **named, "function": function}


def test_chat_equals_llama_server_document():
    assert assembled(*CHAT) == {
        **FIXED,
        "object": "chat.completion",
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "Hello"}}],
        "usage": USAGE,
        "timings": TIMINGS,
    }


def test_text_completion_keeps_object_and_null_logprobs():
    chunks = [
        {"choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": end}], "object": "text_completion"}
        for text, end in (("Hel", None), ("lo", None), ("", "length"))
    ]
    choice = {"text": "Hello", "index": 0, "logprobs": None, "finish_reason": "length"}
    assert assembled(*chunks) == {"object": "text_completion", "choices": [choice]}


def test_tool_calls_are_merged_by_index():
    found = message(
        delta(role="assistant", content=None),
        delta(tool_calls=[call(1, name="time", arguments="{")]),
        delta(tool_calls=[call(0, name="weather", arguments="")]),
        delta(tool_calls=[call(0, arguments='{"city"'), call(1, arguments="}")]),
        delta(tool_calls=[call(0, arguments=':"Oslo"}')]),
        delta("tool_calls"),
    )
    assert found["content"] is None
    assert found["tool_calls"] == [
        {"id": "call-0", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
        {"id": "call-1", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]


def test_repeated_names_are_not_concatenated():
    found = message(delta(role="assistant", content="a"), delta(role="assistant", content="b"))
    assert found == {"role": "assistant", "content": "ab"}
    piece = {"index": 0, "id": "call-0", "type": "function", "function": {"arguments": "x"}}
    (joined,) = message(delta(tool_calls=[piece]), delta(tool_calls=[piece]))["tool_calls"]
    assert joined == {"id": "call-0", "type": "function", "function": {"arguments": "xx"}}


def test_complete_tool_call_without_index_is_kept():
    whole = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert message(delta(tool_calls=[whole]), delta(tool_calls=[whole]))["tool_calls"] == [whole, whole]


def test_reasoning_refusal_and_unknown_texts_are_concatenated():
    found = message(
        delta(reasoning_content="think", refusal="n", murmur="a"), delta(reasoning_content="ing", murmur="b")
    )
    assert found == {"reasoning_content": "thinking", "refusal": "n", "murmur": "ab"}


def test_logprobs_are_appended():
    first, second = ({"token": t, "logprob": -1.5, "bytes": [104], "top_logprobs": []} for t in ("h", "i"))
    chunks = [delta(content="h"), delta(content="i"), delta("stop")]
    for chunk, entry in zip(chunks, (first, second), strict=False):
        chunk["choices"][0]["logprobs"] = {"content": [entry]}  # type: ignore[index]
    assert assembled(*chunks)["choices"][0]["logprobs"] == {"content": [first, second]}


def test_choices_are_sorted_by_index():
    found = assembled(delta(index=1, content="b"), delta(index=0, content="a"), delta("stop", 1), delta("length", 0))
    assert [(choice["message"]["content"], choice["finish_reason"]) for choice in found["choices"]] == [
        ("a", "length"),
        ("b", "stop"),
    ]


def test_last_usage_wins():
    chunks = [{**delta(content="a"), "usage": {"completion_tokens": count}} for count in (1, 2)]
    assert assembled(*chunks, {**delta("stop"), "usage": None})["usage"] == {"completion_tokens": 2}


def test_chunks_without_choices_are_empty():
    assembly = AnswerAssembly()
    assembly.add({"choices": [], "usage": {}})
    assert assembly.empty
    assembly.add(delta(content="a"))  # type: ignore[arg-type]
    assert not assembly.empty


ODD = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "index", "delta", "tool_calls", "text"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(["choices", "object", "usage"]), ODD), max_size=4))
def test_malformed_chunks_do_not_raise(chunks: list[dict[str, Any]]):
    document = assembled(*chunks)
    assert isinstance(document["choices"], list)
    json.dumps(document)


TEXT = st.text(max_size=12)
CALLS = st.lists(st.tuples(TEXT, TEXT), max_size=3)


@given(st.lists(st.tuples(TEXT, CALLS), min_size=1, max_size=3), st.data())
def test_answer_cut_anywhere_is_reassembled(answers: list[tuple[str, Any]], data: st.DataObject):
    pieces = [
        [delta(index=index, role="assistant", content="")]
        + [delta(index=index, content=letter) for letter in content]
        + [delta(index=index, tool_calls=[call(n, name=name, arguments="")]) for n, (name, _) in enumerate(calls)]
        + [delta(index=index, tool_calls=[call(n, arguments=c)]) for n, (_, words) in enumerate(calls) for c in words]
        + [delta("stop", index)]
        for index, (content, calls) in enumerate(answers)
    ]
    document = assembled(*shuffled(pieces, data))
    for choice, (content, calls) in zip(document["choices"], answers, strict=True):
        assert choice["message"]["content"] == content
        found = [
            (each["function"]["name"], each["function"]["arguments"])
            for each in choice["message"].get("tool_calls", ())
        ]
        assert found == calls


def shuffled(lines: list[list[Any]], data: st.DataObject) -> list[Any]:
    """Interleave the lists at random; the items of each keep their order."""
    rest, found = [list(line) for line in lines], []
    while open_lines := [line for line in rest if line]:
        found.append(data.draw(st.sampled_from(open_lines)).pop(0))
    return found


@given(st.integers(min_value=1, max_value=5))
def test_long_text_is_joined_once(thousands: int):
    found = message(*[delta(content="word ") for _ in range(1000 * thousands)])
    assert len(found["content"]) == 5000 * thousands
