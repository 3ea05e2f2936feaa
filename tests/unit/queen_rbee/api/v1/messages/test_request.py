"""Anthropic requests become OpenAI chats, or are refused with the wrong field named."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError
from queen_rbee.api.v1.messages.chat_request import chat_body, count_body
from queen_rbee.api.v1.messages.request import CountRequest, MessagesRequest, parse
from tests.unit.queen_rbee.messages_examples import PNG, QUESTION, WEATHER, anything, body, requests


def chat_of(request: object) -> dict[str, Any]:
    """Return the chat that `request` becomes."""
    return chat_body(parse(MessagesRequest, body(request)))


def chat(**changes: Any) -> dict[str, Any]:
    """Return the chat that QUESTION with `changes` becomes."""
    return chat_of({**QUESTION, **changes})


def conversation(*messages: tuple[str, Any], **changes: Any) -> list[dict[str, Any]]:
    """Return the chat's messages for messages given as (role, content)."""
    translated: list[dict[str, Any]] = chat(
        messages=[{"role": role, "content": content} for role, content in messages], **changes
    )["messages"]
    return translated


def problems(request: object) -> dict[str, str]:
    """Return each wrong field with its problem."""
    with pytest.raises(ApiError) as refusal:
        parse(MessagesRequest, request if isinstance(request, bytes) else body(request))
    assert refusal.value.status == 400
    return {problem.field: problem.problem for problem in refusal.value.body.fields or ()}


def test_minimal_request_becomes_minimal_chat():
    assert chat() == {
        "model": "m",
        "max_tokens": 32,
        "messages": [{"role": "user", "content": "What is the weather?"}],
    }


def test_instructions_are_one_leading_message():
    system = [
        {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be brief."},
    ]
    assert conversation(("user", "hi"), system=system)[0] == {"role": "system", "content": "Be kind.\nBe brief."}
    assert conversation(("user", "hi"), system="Be kind.")[0] == {"role": "system", "content": "Be kind."}
    assert conversation(("system", "Be kind."), ("user", "hi"))[0] == {"role": "system", "content": "Be kind."}


def test_later_instructions_join_the_user_turn():
    translated = conversation(("user", "hi"), ("assistant", "yes?"), ("system", "It is late."), ("user", "go on"))
    assert [(message["role"], message["content"]) for message in translated] == [
        ("user", "hi"),
        ("assistant", "yes?"),
        ("user", "It is late.\ngo on"),
    ]


def test_billing_header_is_left_out_of_prompt():
    system = [{"type": "text", "text": "x-anthropic-billing-header: cch=1a2b3;"}, {"type": "text", "text": "Be kind."}]
    assert conversation(("user", "hi"), system=system)[0]["content"] == "Be kind."


def test_images_become_image_urls_in_place():
    url = {"type": "url", "url": "https://example.org/a.png"}
    blocks = [
        {"type": "text", "text": "Compare"},
        {"type": "image", "source": PNG},
        {"type": "image", "source": url},
    ]
    assert conversation(("user", blocks))[0]["content"] == [
        {"type": "text", "text": "Compare"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]


def test_tool_use_and_result_become_call_and_tool_message():
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"place": "Zürich"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "rain"}]}
    call, result_message, question = conversation(
        ("assistant", [{"type": "text", "text": "I look."}, use]),
        ("user", [result, {"type": "text", "text": "And now?"}]),
    )
    assert call["content"] == "I look."
    assert call["tool_calls"] == [
        {
            "id": "toolu_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"place": "Zürich"}'},
        }
    ]
    assert result_message == {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"}
    assert question == {"role": "user", "content": "And now?"}


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({}, ""),
        ({"content": "rain"}, "rain"),
        ({"content": None}, ""),
        ({"content": "no such place", "is_error": True}, "Error:\nno such place"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb"),
    ],
)
def test_tool_result_is_text_with_error_mark(result: dict[str, Any], text: str):
    block = {"type": "tool_result", "tool_use_id": "t", **result}
    assert conversation(("user", [block])) == [{"role": "tool", "tool_call_id": "t", "content": text}]


def test_images_of_tool_results_follow_in_user_turn():
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image", "source": PNG}]},
        {"type": "tool_result", "tool_use_id": "b", "content": "done"},
    ]
    translated = conversation(("user", results))
    assert [message["role"] for message in translated] == ["tool", "tool", "user"]
    assert [part["type"] for part in translated[2]["content"]] == ["image_url"]


def test_thoughts_are_kept_and_redacted_ones_dropped():
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "so"},
    ]
    (message,) = conversation(("assistant", blocks))
    assert (message["reasoning_content"], message["content"]) == ("hm", "so")
    assert conversation(("user", "hi"), ("assistant", blocks[1:2])) == [{"role": "user", "content": "hi"}]


def test_last_assistant_message_is_continued():
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "The answer is ("}]
    translated = chat(messages=messages)
    assert (translated["continue_final_message"], translated["add_generation_prompt"]) == (True, False)
    assert "continue_final_message" not in chat()
    called = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]}
    assert "continue_final_message" not in chat(messages=[called])


def test_sampling_is_passed_and_defaults_left_to_engine():
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 40}
    assert chat(**sampling, stop_sequences=["END"]).items() >= {**sampling, "stop": ["END"]}.items()
    assert chat(temperature=None, stop_sequences=[], stream=None) == chat()


def test_tools_become_functions():
    translated = chat(
        tools=[WEATHER | {"cache_control": {"type": "ephemeral"}}, {"name": "b", "type": "custom", "input_schema": {}}]
    )
    functions = [tool["function"] for tool in translated["tools"]]
    assert functions[0] == {"name": "get_weather", "description": "Get weather.", "parameters": WEATHER["input_schema"]}
    assert functions[1] == {"name": "b", "description": "", "parameters": {}}
    assert "tool_choice" not in translated


@pytest.mark.parametrize(
    ("choice", "expected"),
    [({"type": "auto"}, "auto"), ({"type": "any"}, "required"), ({"type": "none"}, "none")],
)
def test_tool_choice_is_translated(choice: dict[str, Any], expected: str):
    translated = chat(tools=[WEATHER], tool_choice=choice)
    assert translated["tool_choice"] == expected
    assert "parallel_tool_calls" not in translated
    one = chat(tools=[WEATHER], tool_choice=choice | {"disable_parallel_tool_use": True})
    assert one["parallel_tool_calls"] is False


def test_required_tool_is_the_only_one_offered():
    translated = chat(
        tools=[{"name": "b", "input_schema": {}}, WEATHER], tool_choice={"type": "tool", "name": "get_weather"}
    )
    assert [tool["function"]["name"] for tool in translated["tools"]] == ["get_weather"]
    assert translated["tool_choice"] == "required"


def test_thinking_becomes_template_option_and_is_never_refused():
    enabled = chat(thinking={"type": "enabled", "budget_tokens": 2000})
    assert enabled["chat_template_kwargs"] == {"enable_thinking": True}
    assert enabled["thinking_budget_tokens"] == 2000
    assert chat(thinking={"type": "disabled"})["chat_template_kwargs"] == {"enable_thinking": False}
    for unknown in ({"type": "adaptive"}, {"type": "between_tools"}, {"type": "unknown", "budget_tokens": 5}):
        assert chat(thinking=unknown) == chat()


def test_output_schema_and_effort_are_passed():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    translated = chat(output_config={"effort": "max", "format": {"type": "json_schema", "schema": schema}})
    assert translated["response_format"]["json_schema"]["schema"] == schema
    assert translated["reasoning_effort"] == "high"
    assert chat(output_config={"effort": "unknown"}) == chat()


def test_count_asks_for_one_token():
    request = {"model": "m", "messages": QUESTION["messages"], "tools": [WEATHER]}
    translated = count_body(parse(CountRequest, body(request)))
    assert translated["max_tokens"] == 1
    assert {**translated, "max_tokens": 32} == chat(tools=[WEATHER])


def user(*blocks: object) -> dict[str, Any]:
    return {**QUESTION, "messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        ({}, "model", "is required"),
        ({"model": "m", "messages": []}, "max_tokens", "is required"),
        ({"model": "m", "messages": []}, "messages", "must not be empty"),
        (QUESTION | {"max_tokens": 0}, "max_tokens", "must be at least 1"),
        (QUESTION | {"temperature": 2.5}, "temperature", "must be at most 2"),
        (QUESTION | {"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "'user', 'assistant'"),
        (QUESTION | {"messages": [{"role": "user", "content": []}]}, "messages.0.content", "must not be empty"),
        (QUESTION | {"messages": [{"role": "user"}]}, "messages.0.content", "is required"),
        (QUESTION | {"system": [{"type": "image"}]}, "system.0.type", "'text'"),
        (user({"type": "text"}), "messages.0.content.0.text", "is required"),
        (user({"text": "x"}), "messages.0.content.0.type", "is required"),
        (user({"type": "document"}), "messages.0.content.0.type", "send their content as a text block"),
        (user({"type": "unknown_type"}), "messages.0.content.0.type", "unknown_type is not supported"),
        (user({"type": "text", "text": "a"}, 7), "messages.0.content.1", "must be an object"),
        (
            user({"type": "image", "source": {"type": "file", "file_id": "f"}}),
            "messages.0.content.0.source.type",
            "file is not supported",
        ),
        (
            user({"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}),
            "messages.0.content.0.source.url",
            "must match the pattern",
        ),
        (
            user({"type": "tool_use", "id": "a", "name": "b", "input": {}}),
            "messages.0.content.0",
            "a message of role user must not have tool_use blocks",
        ),
        (
            user({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "document"}]}),
            "messages.0.content.0.content.0.type",
            "documents are not supported",
        ),
        (QUESTION | {"tools": [{"name": "n"}]}, "tools.0.input_schema", "is required"),
        (
            QUESTION | {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "tools.0.type",
            "declare a custom tool",
        ),
        (QUESTION | {"tool_choice": {"type": "any"}}, "tool_choice.type", "requires `tools`"),
        (
            QUESTION | {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "other"}},
            "tool_choice.name",
            "one of `tools`",
        ),
        (b'{"model": "m",', "body", "Invalid JSON"),
        (b"[]", "body", "must be an object"),
        (b'{"model": "\\ud800"}', "body", "Invalid JSON"),
        (
            body(QUESTION | {"tools": [WEATHER]}).replace(b'"properties": {}', b'"maximum": 1e999'),
            "tools.0.input_schema",
            "numbers must be finite",
        ),
    ],
)
def test_wrong_field_is_named(request_: Any, field: str, words: str):
    by_field = problems(request_)
    assert words in by_field[field], by_field


def test_only_the_wrong_field_is_named():
    assert list(problems(user({"type": "document"}))) == ["messages.0.content.0.type"]
    assert list(problems(QUESTION | {"tools": [{"type": "bash_20250124"}]})) == ["tools.0.type"]


def is_chat_or_400(document: object) -> bool:
    """Return whether `document` becomes a chat or a 400 that names fields. Any other exception is a defect."""
    try:
        return bool(chat_of(document))
    except ApiError as refusal:
        return refusal.status == 400 and bool(refusal.body.fields)


@given(anything)
def test_any_document_is_a_chat_or_400(document: object):
    assert is_chat_or_400(document)


@given(requests(), st.data())
def test_field_of_any_type_is_a_chat_or_400(request: dict[str, Any], data: st.DataObject):
    field = data.draw(st.sampled_from(sorted(request)))
    assert is_chat_or_400({**request, field: data.draw(anything)})


@given(requests())
def test_valid_request_becomes_valid_chat(request: dict[str, Any]):
    translated = chat_of(request)
    json.dumps(translated, allow_nan=False)
    roles = [message["role"] for message in translated["messages"]]
    assert "system" not in roles[1:]
    turns = [role for role in roles if role != "system"]
    assert all(one != next_ or one == "tool" for one, next_ in pairwise(turns))
    assert translated["max_tokens"] == request["max_tokens"]
    assert set(translated) <= {
        "model", "messages", "max_tokens", "stop", "temperature", "top_p", "top_k", "tools", "tool_choice",
        "parallel_tool_calls", "chat_template_kwargs", "thinking_budget_tokens", "reasoning_effort",
        "add_generation_prompt", "continue_final_message",
    }  # fmt: skip


@given(requests())
def test_no_text_call_or_image_is_lost(request: dict[str, Any]):
    translated = chat_of(request)["messages"]
    blocks = [block for message in request["messages"] for block in as_list(message["content"])]
    calls = [call for message in translated for call in message.get("tool_calls", ())]
    assert [(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls] == [
        (block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"
    ]
    results = [block for block in blocks if block["type"] == "tool_result"]
    assert [message["tool_call_id"] for message in translated if message["role"] == "tool"] == [
        result["tool_use_id"] for result in results
    ]
    parts = [part for block in [*blocks, *results] for part in [block, *as_list(block.get("content"))]]
    images = sum(part["type"] == "image" for result in results for part in as_list(result.get("content")))
    images += sum(block["type"] == "image" for block in blocks)
    assert json.dumps(translated).count('"image_url": {') == images
    texts = "\n".join(map(str, (message["content"] for message in translated)))
    for part in parts:
        if part["type"] == "text" and part["text"].isalnum():
            assert part["text"] in texts


def as_list(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content or ""}] if content is None or isinstance(content, str) else content
