"""Requests of Ollama's API as bodies for engines, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError
from queen_rbee.api.ollama.chat_request import chat_body, data_url, generation_body
from queen_rbee.api.ollama.request import ChatRequest, EmbedRequest, GenerateRequest, PullRequest, parse

USER = {"role": "user", "content": "hello"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> dict[str, Any]:
    """Return the body of a chat with `fields`."""
    body = {"model": "m", "messages": [USER], **fields}
    return dict(chat_body(parse(ChatRequest, json.dumps(body).encode())))


def generation(**fields: Any) -> dict[str, Any]:
    return dict(
        generation_body(parse(GenerateRequest, json.dumps({"model": "m", "prompt": "hello", **fields}).encode()))
    )


def refusal(kind: Any, **fields: Any) -> str:
    with pytest.raises(ApiError) as refused:
        parse(kind, json.dumps({"model": "m", **fields}).encode())
    assert refused.value.status == 400
    return refused.value.body.message


def call(name: str, identifier: str | None = None) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {"place": "Bern"}}} | ({"id": identifier} if identifier else {})


def test_plain_chat_has_nothing_else() -> None:
    assert chat(stream=True, keep_alive="5m", options={}) == {"model": "m", "messages": [USER]}


def test_options_get_the_names_of_engines() -> None:
    options = {"num_predict": 8.0, "stop": "END", "seed": 7, "temperature": 0.5, "top_k": 40, "repeat_penalty": 1.1}
    ignored = {"num_ctx": 8192, "num_gpu": 99, "num_thread": 4, "use_mmap": True, "tfs_z": 1, "mirostat": None}
    assert chat(options={**options, **ignored}) == {
        "model": "m",
        "messages": [USER],
        "max_tokens": 8,
        "stop": ["END"],
        "seed": 7,
        "temperature": 0.5,
        "top_k": 40,
        "repeat_penalty": 1.1,
        "repetition_penalty": 1.1,
    }


@pytest.mark.parametrize("unlimited", [-1, -2, 0])
def test_unlimited_answer_has_no_max_tokens(unlimited: int) -> None:
    assert "max_tokens" not in chat(options={"num_predict": unlimited})


def test_format_is_json_or_schema() -> None:
    assert "response_format" not in chat(format="")
    assert chat(format="json")["response_format"] == {"type": "json_object"}
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    assert chat(format=schema)["response_format"]["json_schema"]["schema"] == schema


def test_thinking_is_switched_and_has_effort() -> None:
    assert chat(think=True)["chat_template_kwargs"] == {"enable_thinking": True}
    assert chat(think=False)["chat_template_kwargs"] == {"enable_thinking": False}
    assert chat(think="low")["reasoning_effort"] == "low"
    assert "chat_template_kwargs" not in chat()


def test_thoughts_of_earlier_turns_are_passed_on() -> None:
    (message,) = chat(messages=[{"role": "assistant", "content": "4", "thinking": "2 + 2"}])["messages"]
    assert message == {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}


def test_images_become_data_urls() -> None:
    (message,) = chat(messages=[{**USER, "images": ["/9j/AAA="]}])["messages"]
    assert message["content"] == [
        {"type": "text", "text": "hello"},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/AAA="}},
    ]
    assert data_url("iVBORw0KGgoAAAA").startswith("data:image/png;")
    assert data_url("UklGRAAA").startswith("data:image/webp;")
    assert generation(images=["R0lGODlh"])["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/gif")


def test_tools_have_openai_shape() -> None:
    (tool,) = chat(tools=[WEATHER])["tools"]
    assert tool == {
        "type": "function",
        "function": {"name": "weather", "description": "", "parameters": {"type": "object"}},
    }


def test_results_answer_the_calls_of_their_tools() -> None:
    messages = chat(
        messages=[
            {"role": "assistant", "tool_calls": [call("weather"), call("time")]},
            {"role": "tool", "content": "noon", "tool_name": "time"},
            {"role": "tool", "content": "rain"},
            {"role": "assistant", "tool_calls": [call("time", "c9")]},
            {"role": "tool", "content": "one", "tool_call_id": "c9"},
        ]
    )["messages"]
    assert [each["id"] for each in messages[0]["tool_calls"]] == ["call_1", "call_2"]
    assert [each.get("tool_call_id") for each in messages] == [None, "call_2", "call_1", None, "c9"]
    assert messages[0]["tool_calls"][0]["function"]["arguments"] == '{"place": "Bern"}'


NAMES = st.sampled_from(["a", "b", "c"])
TURNS = st.lists(
    st.one_of(
        st.builds(lambda names: {"role": "assistant", "tool_calls": [*map(call, names)]}, st.lists(NAMES, max_size=3)),
        st.builds(
            lambda name: {"role": "tool", "content": "x", **({"tool_name": name} if name else {})}, st.none() | NAMES
        ),
    ),
    min_size=1,
    max_size=12,
)


@given(TURNS)
def test_each_call_has_one_answer_at_most(turns: list[dict[str, Any]]) -> None:
    messages = chat(messages=turns)["messages"]
    made: list[str] = []
    answered: list[str] = []
    for message in messages:
        made += [each["id"] for each in message.get("tool_calls", ())]
        if message["role"] == "tool":
            left = set(made) - set(answered)
            answered.append(message["tool_call_id"])
            assert message["tool_call_id"] in left or not left
    assert len(set(made)) == len(made)
    assert len(set(answered)) == len(answered)


def test_generate_has_system_and_prompt() -> None:
    assert generation(system="Be kind.", options={"num_predict": 3}) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, USER],
        "max_tokens": 3,
    }
    assert generation(raw=True, options={"top_p": 0.5}) == {"model": "m", "prompt": "hello", "top_p": 0.5}


def test_empty_fields_of_clients_are_no_wish() -> None:
    nothing: dict[str, Any] = {
        "template": "",
        "context": [],
        "suffix": "",
        "images": [],
        "system": "",
        "format": "",
        "width": None,
    }
    assert generation(**nothing) == {"model": "m", "messages": [USER]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"template": "{{ .Prompt }}"}, "template: a template per request"),
        ({"context": [1]}, "context: is not supported: send the conversation to /api/chat"),
        ({"suffix": "}"}, "suffix: this model does not support insert"),
        ({"width": 64}, "width: images are not generated"),
        ({"raw": True, "system": "s"}, "raw: does not support system"),
        ({"raw": True, "format": "json"}, "raw: does not support format"),
        ({"options": {"colour": 1}}, "options.colour: is not an option that is known here"),
        ({"options": {"temperature": "0"}}, "options.temperature: must be a valid number"),
        ({"keep_alive": "soon"}, "keep_alive: must be a duration"),
        ({"keep_alive": True}, "keep_alive"),
        ({"images": ["not base64!"]}, "images.0: must match the pattern"),
        ({"think": "deeply"}, "think"),
        ({"format": "xml"}, "format"),
        ({"model": ""}, "model: "),
    ],
)
def test_what_would_change_the_answer_is_refused(fields: dict[str, Any], words: str) -> None:
    assert words in refusal(GenerateRequest, **fields)


def test_messages_are_bounded_and_have_known_roles() -> None:
    assert "messages.0.role" in refusal(ChatRequest, messages=[{"role": "bee", "content": "x"}])
    assert "messages" in refusal(ChatRequest, messages=[USER] * 10_001)
    assert "input: has 2049 texts" in refusal(EmbedRequest, input=["x"] * 2049)


def test_name_of_older_clients_is_the_model() -> None:
    assert parse(PullRequest, b'{"name": "m"}').model == "m"
    assert "model: is required" in refusal_of_nothing()


def refusal_of_nothing() -> str:
    with pytest.raises(ApiError) as refused:
        parse(PullRequest, b"{}")
    return refused.value.body.message


def test_request_without_content_is_empty() -> None:
    for body in ("{}", '{"messages": []}', '{"messages": null}'):
        assert parse(ChatRequest, json.dumps({"model": "m", **json.loads(body)}).encode()).empty
    assert parse(GenerateRequest, b'{"model": "m", "prompt": ""}').empty
    assert not parse(GenerateRequest, b'{"model": "m", "images": ["AAAA"]}').empty
    assert parse(EmbedRequest, b'{"model": "m", "input": ""}').input == []
