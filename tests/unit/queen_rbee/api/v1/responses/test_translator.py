"""Translation of OpenAI chat chunks into the events of a response, checked with the openai package's types."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState

from llama_orch.contracts.errors import ErrorBody, ErrorCode
from queen_rbee.api.v1.responses.request import parse
from queen_rbee.api.v1.responses.resource import head
from queen_rbee.api.v1.responses.translator import ResponseTranslator
from tests.unit.queen_rbee.messages_examples import call, chunk, usage
from tests.unit.queen_rbee.response_events import EVENT_TYPES, check_events

NOW = 1_800_000_000
BROKEN = ErrorBody(code=ErrorCode.WORKER_RESET, message="the engine broke off the answer")


def translator(**fields: Any) -> ResponseTranslator:
    request = parse(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    return ResponseTranslator(head(request, "1", NOW, stored=False), request.functions)


def translate(chunks: Iterable[str], failure: ErrorBody | None = None, **fields: Any) -> list[dict[str, Any]]:
    """Return all events of an answer that consists of `chunks`, and fails then if there is a `failure`."""
    made = translator(**fields)
    events: list[Any] = [event for one in chunks for event in made.chunk(one)]
    assert made.valid
    events += made.fail(failure) if failure else made.end(3, 2, NOW + 1)
    parsed: list[dict[str, Any]] = json.loads(json.dumps(events))  # as clients see them
    return parsed


def response(chunks: Iterable[str], **fields: Any) -> dict[str, Any]:
    return check_events(translate(chunks, **fields))


def test_text_is_streamed_in_published_order():
    events = translate(
        [chunk({"role": "assistant", "content": None}), chunk({"content": "Hel"}), chunk({"content": "lo"})]
    )
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(10))
    (message,) = check_events(events)["output"]
    text = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    assert message == {
        "id": "msg_1_0",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [text],
    }


def test_call_is_streamed_in_published_order():
    chunks = [
        chunk(call(0, id="c1", name="get_weather")),
        chunk(call(0, '{"place": ')),
        chunk(call(0, '"Bern"}')),
        chunk(finish="tool_calls"),
    ]
    events = translate(chunks)
    assert [event["type"] for event in events[2:]] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    (found,) = check_events(events)["output"]
    called = {"call_id": "c1", "name": "get_weather", "arguments": '{"place": "Bern"}'}
    assert found == {"id": "fc_1_0", "type": "function_call", "status": "completed", **called}


def test_call_in_a_namespace_has_both_names():
    send = {"type": "function", "name": "send", "parameters": {"type": "object"}}
    space = {"type": "namespace", "name": "mail", "description": "Mail.", "tools": [send]}
    found = response([chunk(call(0, "{}", id="a", name="mail__send"))], tools=[space])
    assert (found["output"][0]["name"], found["output"][0]["namespace"]) == ("send", "mail")
    assert found["tools"] == [{**space, "tools": [{**send, "description": None, "strict": False}]}]


def test_interleaved_calls_follow_one_another():
    chunks = [chunk(call(0, id="a", name="x")), chunk(call(1, "{}", id="b", name="y")), chunk(call(0, '{"z": 1}'))]
    found = [(item["call_id"], item["arguments"]) for item in response(chunks)["output"]]
    assert found == [("a", '{"z": 1}'), ("b", "{}")]


def test_calls_with_the_same_id_stay_apart():
    chunks = [chunk(call(0, "{}", id="a", name="x")), chunk(call(1, "{}", id="a", name="y"))]
    assert [item["name"] for item in response(chunks)["output"]] == ["x", "y"]


def test_call_without_arguments_has_an_empty_object():
    (found,) = response([chunk(call(0, name="now"))])["output"]
    assert (found["arguments"], found["call_id"]) == ("{}", "call_1_0")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_become_a_reasoning_item(field: str):
    events = translate([chunk({field: "h"}), chunk({field: "m"}), chunk({"content": "so"})])
    reasoning, message = check_events(events)["output"]
    thoughts = {"id": "rs_1_0", "type": "reasoning", "status": "completed", "summary": []}
    assert reasoning == {**thoughts, "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert message["id"] == "msg_1_1"
    assert [event["type"] for event in events if "reasoning" in event["type"]] == [
        "response.reasoning_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
    ]


def test_refusal_is_a_part_of_the_message():
    (message,) = response([chunk({"content": "I"}), chunk({"refusal": "No."})])["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]
    assert message["content"][1]["refusal"] == "No."


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_cut_answer_is_incomplete(finish: str, reason: str):
    found = response([chunk({"content": "Hel"}), chunk(finish=finish)])
    assert (found["status"], found["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert (found["output"][-1]["status"], found["completed_at"]) == ("incomplete", None)


def test_usage_has_details():
    counted = json.loads(usage(25, 15, 5))
    counted["usage"]["completion_tokens_details"] = {"reasoning_tokens": 4}
    assert response([chunk({"content": "x"}), json.dumps(counted)])["usage"] == {
        "input_tokens": 25,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
        "output_tokens": 15,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 40,
    }


def test_counts_of_the_task_replace_missing_usage():
    assert response([chunk({"content": "x"})])["usage"]["total_tokens"] == 5


def test_failure_closes_what_is_open_and_names_the_error():
    events = translate([chunk({"content": "Hel"})], failure=BROKEN)
    failed = check_events(events)
    assert [event["type"] for event in events[-3:]] == ["response.output_item.done", "error", "response.failed"]
    assert (events[-2]["code"], events[-2]["message"]) == ("WORKER_RESET", "the engine broke off the answer")
    assert (failed["status"], failed["output"][0]["status"]) == ("failed", "incomplete")
    assert failed["error"] == {"code": "server_error", "message": "the engine broke off the answer"}


def test_failure_before_the_first_chunk_has_the_head():
    kinds = [event["type"] for event in translate([], failure=BROKEN)]
    assert kinds == ["response.created", "response.in_progress", "error", "response.failed"]


@pytest.mark.parametrize("data", ["{", '{"choices": [{"delta": {"content": 1}}]}', "[]"])
def test_unreadable_chunk_is_noticed(data: str):
    made = translator()
    assert made.chunk(data) == []
    assert not made.valid


def test_response_repeats_the_request():
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object"}}]
    fields: dict[str, Any] = {
        "instructions": "Be kind.",
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "metadata": {"a": "b"},
        "tool_choice": {"type": "function", "name": "look"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "auto"},
    }
    found = response([chunk({"content": "x"})], tools=tools, **fields)
    assert {name: found[name] for name in fields if name != "reasoning"} == {
        name: value for name, value in fields.items() if name != "reasoning"
    }
    assert found["reasoning"] == {"effort": "low", "summary": None}
    assert found["tools"] == [{**tools[0], "description": None, "strict": False}]
    assert (found["store"], found["model"], found["created_at"], found["completed_at"]) == (False, "m", NOW, NOW + 1)


pieces = st.text(min_size=1, max_size=5)
deltas = st.one_of(
    st.builds(lambda text: {"content": text}, pieces),
    st.builds(lambda text: {"reasoning_content": text}, pieces),
    st.builds(lambda text: {"refusal": text}, pieces),
    st.builds(lambda text, thought: {"content": text, "reasoning": thought}, pieces, pieces),
    st.just({"role": "assistant", "content": None}),
    st.just("call"),
)


@st.composite
def answers(draw: st.DrawFn) -> list[str]:
    """Generate the chunks of an answer, whose calls may come in pieces that are interleaved."""
    chunks: list[str] = []
    calls = 0
    for delta in draw(st.lists(deltas, max_size=8)):
        if not isinstance(delta, str):
            chunks.append(chunk(delta))
            continue
        several = range(calls, calls + draw(st.integers(1, 3)))
        calls = several.stop
        chunks += [chunk(call(number, name=f"f{number}", id=f"c{number}")) for number in several]
        rest = {number: draw(st.lists(pieces, max_size=3)) for number in several}
        while any(rest.values()):
            number = draw(st.sampled_from([number for number in several if rest[number]]))
            chunks.append(chunk(call(number, rest[number].pop(0))))
    finish = draw(st.sampled_from([None, "stop", "length", "tool_calls", "content_filter"]))
    chunks += [chunk(finish=finish)] if finish else []
    return [*chunks, *draw(st.sampled_from([[], [usage(9, 4, 2)]]))]


@given(answers(), st.none() | st.just(BROKEN))
def test_every_answer_follows_the_published_order(chunks: list[str], failure: ErrorBody | None):
    events = translate(chunks, failure)
    check_events(events)


@given(answers())
def test_all_text_of_an_answer_is_in_its_events(chunks: list[str]):
    given_texts = [choice["delta"] for one in chunks for choice in json.loads(one)["choices"]]
    sent = "".join(delta.get("content") or "" for delta in given_texts)
    streamed = "".join(event["delta"] for event in translate(chunks) if event["type"] == "response.output_text.delta")
    assert streamed == sent


@given(answers())
def test_package_assembles_the_same_response(chunks: list[str]):
    events = translate(chunks)
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        state.handle_event(EVENT_TYPES[event["type"]].model_validate(event))
    if events[-1]["type"] == "response.completed":
        assert [item.id for item in state._completed_response.output] == [
            item["id"] for item in events[-1]["response"]["output"]
        ]
