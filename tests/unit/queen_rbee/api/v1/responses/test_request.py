"""Requests for responses become OpenAI chats, or are refused with the wrong field named."""

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from llama_orch.contracts.errors import ApiError
from queen_rbee.api.v1.responses.chat_request import chat_body
from queen_rbee.api.v1.responses.items import ITEMS
from queen_rbee.api.v1.responses.request import ResponsesRequest, parse
from tests.unit.queen_rbee.messages_examples import anything, names, texts

WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
CALL = {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}", "id": "fc_1"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "rain"}
PNG = "data:image/png;base64,aGVsbG8="


def chat(given: Any = "hi", **fields: Any) -> dict[str, Any]:
    """Return the chat that a request with the input `given` becomes."""
    return chat_body(parse(json.dumps({"model": "m", "input": given, **fields}).encode()))


def messages(*items: Any, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chat(list(items), **fields)["messages"]
    return found


def problems(given: Any = "hi", **fields: Any) -> dict[str, str]:
    """Return each wrong field with its problem."""
    with pytest.raises(ApiError) as refusal:
        chat(given, **fields)
    assert refusal.value.status == 400
    return {problem.field: problem.problem for problem in refusal.value.body.fields or ()}


def says(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_text_becomes_the_user_message():
    assert chat("hi") == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_instructions_are_one_leading_message():
    found = messages(says("developer", "Be brief."), says("user", "hi"), instructions="Be kind.")
    assert found == [{"role": "system", "content": "Be kind.\nBe brief."}, {"role": "user", "content": "hi"}]


def test_later_instructions_join_the_user_turn():
    found = messages(
        says("user", "hi"), says("assistant", "yes?"), says("system", "It is late."), says("user", "go on")
    )
    assert [(message["role"], message["content"]) for message in found] == [
        ("user", "hi"),
        ("assistant", "yes?"),
        ("user", "It is late.\ngo on"),
    ]


def test_output_items_become_one_assistant_turn():
    reasoning = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
    }
    answer: dict[str, Any] = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed"}
    answer |= {"content": [{"type": "output_text", "text": "I look.", "annotations": []}]}
    found = messages(says("user", "weather?"), reasoning, answer, CALL, OUTPUT)
    function = {"name": "get_weather", "arguments": "{}"}
    assert found[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
    ]


def test_summary_stands_for_missing_reasoning():
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "x"}
    assert messages(says("user", "a"), reasoning, says("assistant", "b"))[1]["reasoning_content"] == "hm"


def test_encrypted_reasoning_is_left_out():
    reasoning = {"type": "reasoning", "summary": [], "encrypted_content": "x"}
    assert messages(says("user", "a"), reasoning) == [{"role": "user", "content": "a"}]


def test_images_become_image_urls_in_place():
    parts = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": PNG, "detail": "low"}]
    assert messages(says("user", parts))[0]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
    ]


def test_images_of_tools_follow_all_results_in_a_user_turn():
    image = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": PNG}]
    second = [{**CALL, "call_id": "c2"}, {**OUTPUT, "call_id": "c2"}]
    found = messages(says("user", "a"), CALL, second[0], {**OUTPUT, "output": image}, second[1], says("user", "b"))
    assert [message["role"] for message in found] == ["user", "assistant", "tool", "tool", "user"]
    assert found[2]["content"] == "see"
    assert [part["type"] for part in found[4]["content"]] == ["image_url", "text"]


def test_history_precedes_the_input():
    request = parse(json.dumps({"input": [OUTPUT], "instructions": "New."}).encode())
    history = ITEMS.validate_python((says("user", "weather?"), CALL))
    found: Any = chat_body(request, history)["messages"]
    assert [message["role"] for message in found] == ["system", "user", "assistant", "tool"]


def test_options_get_their_names_in_chats():
    fields: dict[str, Any] = {"max_output_tokens": 9, "temperature": 0.5, "top_p": 0.9, "prompt_cache_key": "k"}
    found = chat(**fields, reasoning={"effort": "minimal"}, text={"verbosity": "low"}, parallel_tool_calls=False)
    assert found == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "prompt_cache_key": "k",
        "reasoning_effort": "low",
        "verbosity": "low",
    }
    assert chat(reasoning={"effort": "none"})["chat_template_kwargs"] == {"enable_thinking": False}


def test_schema_becomes_response_format():
    schema = {"type": "object"}
    found = chat(text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}})
    assert found["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": schema, "strict": True},
    }
    assert chat(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    assert "response_format" not in chat(text={"format": {"type": "text"}})


@pytest.mark.parametrize(
    ("choice", "sent", "offered"),
    [
        (None, None, ["get_weather", "look"]),
        ("auto", "auto", ["get_weather", "look"]),
        ("required", "required", ["get_weather", "look"]),
        ("none", "none", ["get_weather", "look"]),
        ({"type": "function", "name": "look"}, "required", ["look"]),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]}, "auto", ["look"]),
    ],
)
def test_only_allowed_tools_are_offered(choice: Any, sent: str | None, offered: list[str]):
    found = chat(tools=[WEATHER, {"type": "function", "name": "look", "strict": True}], tool_choice=choice)
    assert [tool["function"]["name"] for tool in found["tools"]] == offered
    assert found.get("tool_choice") == sent


def test_tool_becomes_a_function():
    found = chat(tools=[{**WEATHER, "description": "Get weather.", "strict": True}], parallel_tool_calls=True)
    function = {
        "name": "get_weather",
        "description": "Get weather.",
        "parameters": WEATHER["parameters"],
        "strict": True,
    }
    assert found["tools"] == [{"type": "function", "function": function}]
    assert found["parallel_tool_calls"] is True


def test_unknown_fields_reach_the_engine_and_ignored_ones_do_not():
    ignored = {"user": "someone", "metadata": {"a": "secret"}, "service_tier": "auto", "client_metadata": {"b": "c"}}
    found = chat(seed=1, top_k=5, **ignored, store=True, stream=True, include=["reasoning.encrypted_content"])
    assert (found.pop("seed"), found.pop("top_k")) == (1, 5)
    assert set(found) == {"model", "messages"}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("background", True, "POST /v2/tasks"),
        ("conversation", "conv_1", "previous_response_id"),
        ("prompt", {"id": "pmpt_1"}, "instructions"),
        ("truncation", "auto", "shorten"),
        ("context_management", [{"type": "compaction"}], "shorten"),
        ("moderation", {"model": "m"}, "no engine"),
        ("top_logprobs", 5, "chat/completions"),
        ("include", ["message.output_text.logprobs"], "chat/completions"),
        ("messages", [], "use input"),
        ("max_tokens", 5, "use max_output_tokens"),
        ("response_format", {"type": "text"}, "use text.format"),
        ("n", 2, "several requests"),
        ("temperature", 3, "at most 2"),
        ("max_output_tokens", 0, "at least 1"),
        ("metadata", {str(number): "" for number in range(17)}, "16"),
        ("tool_choice", "required", "requires `tools`"),
        ("input", [], "must not be empty"),
        ("input", 1, "array"),
    ],
)
def test_what_no_engine_does_is_refused(field: str, value: Any, words: str):
    found = problems(**{field: value})
    assert list(found) == [field]
    assert words in found[field]


@pytest.mark.parametrize(
    ("tool", "problem"),
    [
        ({"type": "web_search"}, "only OpenAI's service runs"),
        ({"type": "mcp", "server_label": "x"}, "only OpenAI's service runs"),
        ({"type": "custom", "name": "x"}, "declare a tool of type function"),
    ],
)
def test_built_in_tools_are_refused(tool: Any, problem: str):
    assert problem in problems(tools=[WEATHER, tool])["tools[1].type"]


@pytest.mark.parametrize(
    ("item", "field", "words"),
    [
        ({"type": "web_search_call", "id": "x"}, "input[0].type", "only OpenAI's service runs"),
        ({"type": "item_reference"}, "input[0].id", "is required"),
        ({"type": "song"}, "input[0].type", "song is not supported"),
        ({"type": 1}, "input[0].type", "is required"),
        ("hello", "input[0].type", "is required"),
        ({"role": "user"}, "input[0].content", "is required"),
        ({"role": "dog", "content": "x"}, "input[0].role", "'user'"),
        (says("user", [{"type": "input_file", "file_id": "f"}]), "input[0].content[0].type", "files are not supported"),
        (says("user", [{"type": "input_text"}]), "input[0].content[0].text", "is required"),
        (says("user", [{"type": "input_image", "file_id": "f"}]), "input[0].content[0].image_url", "file_id"),
        (says("user", [{"type": "input_image", "image_url": "file:///x"}]), "input[0].content[0].image_url", "pattern"),
        (says("assistant", [{"type": "input_image", "image_url": PNG}]), "input[0].content[0]", "must not have images"),
        (OUTPUT, "input[0].call_id", "function_call before it"),
        ({**CALL, "arguments": {}}, "input[0].arguments", "string"),
    ],
)
def test_invalid_item_is_named_by_its_path(item: Any, field: str, words: str):
    found = problems([item])
    assert list(found) == [field]
    assert words in found[field]


def test_namespaces_become_prefixes():
    send = {"type": "function", "name": "send", "parameters": {"type": "object"}}
    call = {**CALL, "name": "send", "namespace": "mail"}
    space = {"type": "namespace", "name": "mail", "description": "Mail.", "tools": [send]}
    found = chat([says("user", "a"), call, OUTPUT], tools=[WEATHER, space])
    assert [tool["function"]["name"] for tool in found["tools"]] == ["get_weather", "mail__send"]
    assert found["messages"][1]["tool_calls"][0]["function"]["name"] == "mail__send"
    assert "tools[0].tools[0].name" in problems(tools=[{**space, "tools": [{"type": "function"}]}])


def test_unknown_tool_choices_are_refused():
    assert "'x'" in problems(tools=[WEATHER], tool_choice={"type": "function", "name": "x"})["tool_choice"]
    assert "must be 'none'" in problems(tools=[WEATHER], tool_choice={"type": "mcp"})["tool_choice.type"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"input": "a", "seed": 1e999}', b'{"input": "a", "seed": NaN}'])
def test_what_is_no_request_is_refused(body: bytes):
    with pytest.raises(ApiError) as refusal:
        parse(body)
    assert refusal.value.status == 400


def test_every_documented_field_is_known():
    assert set(ResponseCreateParamsBase.__annotations__) - set(ResponsesRequest.model_fields) == {
        "access_programs",
        "background_options",
        "image",
    }


parts = st.lists(
    st.builds(lambda text: {"type": "input_text", "text": text}, texts)
    | st.just({"type": "input_image", "image_url": PNG})
    | st.builds(lambda text: {"type": "refusal", "refusal": text}, texts),
    max_size=3,
)
plain = st.lists(st.builds(lambda text: {"type": "output_text", "text": text}, texts), max_size=3)
items = (
    st.builds(lambda content: says("user", content), texts | parts)
    | st.builds(says, st.sampled_from(["assistant", "system", "developer"]), texts | plain)
    | st.builds(lambda name: {**CALL, "call_id": name}, names)
    | st.builds(lambda name, output: {**OUTPUT, "call_id": name, "output": output}, names, texts | parts)
    | st.builds(
        lambda text: {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}, texts
    )
)


@given(st.lists(items, min_size=1, max_size=8), st.none() | texts)
def test_chats_have_what_templates_agree_about(given_items: list[Any], instructions: str | None):
    called = {item["call_id"] for item in given_items if item.get("type") == "function_call_output"}
    calls = [{**CALL, "call_id": name} for name in sorted(called)]
    found = messages(*calls, *given_items, instructions=instructions)
    roles = [message["role"] for message in found]
    assert "system" not in roles[1:]
    assert all(first != second or first == "tool" for first, second in pairwise(roles))
    assert all(isinstance(message["content"], str) or message["role"] == "user" for message in found)


@given(anything | st.fixed_dictionaries({}, optional=dict.fromkeys(ResponsesRequest.model_fields, anything)))
def test_any_body_is_translated_or_refused(body: Any):
    with suppress(ApiError):  # anything else would be status 500
        chat_body(parse(json.dumps(body).encode()))
