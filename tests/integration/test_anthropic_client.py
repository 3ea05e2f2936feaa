"""The anthropic package, synchronous and asynchronous, against a HOME_PROFILE with a real llama-server."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam

from tests.integration.home import Home

HELLO: list[MessageParam] = [{"role": "user", "content": "hello world"}]
LONG = 900
CTX = 1024


@pytest.fixture
def client(fast: Home) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=fast.url, api_key="any", max_retries=0) as opened:
        yield opened


def text_of(message: anthropic.types.Message) -> str:
    """Return the text of `message`, which must have exactly one block."""
    (block,) = message.content
    assert block.type == "text"
    return block.text


def test_message_reports_engine_token_counts(client: anthropic.Anthropic):
    message = client.messages.create(
        model="default", max_tokens=16, messages=HELLO, system="be brief", extra_headers={"X-Correlation-Id": "mine"}
    )
    assert text_of(message)
    assert (message.role, message.stop_reason, message.usage.output_tokens) == ("assistant", "max_tokens", 16)
    assert message.usage.input_tokens > 0
    assert message._request_id == "mine"


def test_streamed_text_equals_final_message(client: anthropic.Anthropic):
    with client.messages.stream(model="default", max_tokens=24, messages=HELLO) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == text_of(message)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 24)
    assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) > 0


def test_stream_events_follow_anthropic_order(client: anthropic.Anthropic):
    stream = client.messages.create(model="default", max_tokens=3, messages=HELLO, stream=True)
    kinds = [event.type for event in stream]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_message_start_reports_prompt_tokens(client: anthropic.Anthropic):
    for words in ("hello", "a prompt that is new and that no slot has in its cache"):
        body: Any = {"model": "default", "max_tokens": 3, "messages": [{"role": "user", "content": words}]}
        events = list(client.messages.create(**body, stream=True))
        start, delta = events[0], events[-2]
        assert start.type == "message_start"
        assert delta.type == "message_delta"
        first, last = start.message.usage, delta.usage
        assert first.input_tokens + (first.cache_read_input_tokens or 0) > 0
        assert (first.input_tokens, first.cache_read_input_tokens) == (last.input_tokens, last.cache_read_input_tokens)


def test_blocks_turns_and_prefilled_answer_reach_model(client: anthropic.Anthropic):
    text = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
    turns: Any = [
        {"role": "user", "content": [text, {"type": "text", "text": "world"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, text]},
        {"role": "user", "content": "and more"},
        {"role": "assistant", "content": "the model will"},
    ]
    message = client.messages.create(model="default", max_tokens=4, messages=turns, system=[text])  # type: ignore[list-item]
    alone = client.messages.count_tokens(model="default", messages=HELLO)
    assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) > alone.input_tokens


def test_optional_request_fields_are_accepted(client: anthropic.Anthropic):
    message = client.messages.create(
        model="default",
        max_tokens=4,
        messages=HELLO,
        stop_sequences=["never said"],
        thinking={"type": "enabled", "budget_tokens": 1024},
        tools=[{"name": "look", "input_schema": {"type": "object"}}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        metadata={"user_id": "someone"},
        service_tier="auto",
        extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 5, "an_option_of_tomorrow": {"really": True}},
    )
    assert message.usage.output_tokens == 4


def test_stop_sequence_ends_answer_before_it(client: anthropic.Anthropic):
    message = client.messages.create(model="default", max_tokens=200, messages=HELLO, stop_sequences=["e"])
    assert message.stop_reason in ("end_turn", "stop_sequence")
    assert "e" not in "".join(block.text for block in message.content if block.type == "text")


def test_answer_follows_requested_schema(client: anthropic.Anthropic):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    message = client.messages.create(
        model="default",
        max_tokens=200,
        messages=HELLO,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert json.loads(text_of(message))["colour"] in ("red", "blue")


def test_token_count_matches_usage_of_answer(client: anthropic.Anthropic):
    counted = client.messages.count_tokens(model="default", messages=HELLO, system="be brief")
    usage = client.messages.create(model="default", max_tokens=1, messages=HELLO, system="be brief").usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_full_context_is_reported_as_stop_reason(client: anthropic.Anthropic):
    words = "hello " * 980
    message = client.messages.create(
        model="default", max_tokens=LONG, messages=[{"role": "user", "content": words}], stop_sequences=["never said"]
    )
    assert message.stop_reason == "model_context_window_exceeded"


@pytest.mark.parametrize(
    ("wrong", "exception", "words"),
    [
        ({"messages": [{"role": "user"}]}, "BadRequestError", "messages.0.content: is required"),
        ({"max_tokens": 0}, "BadRequestError", "max_tokens: must be at least 1"),
        ({"messages": [{"role": "user", "content": "hello " * 3000}]}, "BadRequestError", "context"),
        ({"model": "gpt-7"}, "NotFoundError", "gpt-7"),
    ],
)
def test_invalid_request_raises_matching_exception(
    client: anthropic.Anthropic, wrong: dict[str, Any], exception: str, words: str
):
    request: Any = {"model": "default", "max_tokens": 4, "messages": HELLO, **wrong}
    for streamed in (False, True):
        with pytest.raises(anthropic.APIStatusError) as raised:
            client.messages.create(**request, stream=streamed)
        assert type(raised.value).__name__ == exception
        assert words in str(raised.value.api_message)
        assert raised.value.request_id


def test_unsupported_image_is_refused_and_engine_goes_on(client: anthropic.Anthropic):
    source = {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}
    messages: Any = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    with pytest.raises(anthropic.BadRequestError, match="image input is not supported"):
        client.messages.create(model="default", max_tokens=4, messages=messages)
    assert client.messages.create(model="default", max_tokens=1, messages=HELLO).usage.output_tokens == 1


def test_models_are_listed_in_pages_and_found_by_name(client: anthropic.Anthropic):
    names = [model.id for model in client.models.list(limit=1)]
    assert names == [model.id for model in client.models.list()]
    assert names[0] == "default"
    for name in names:
        model = client.models.retrieve(name)
        assert (model.type, model.display_name, model.max_input_tokens) == ("model", name, CTX)
        assert client.messages.create(model=name, max_tokens=1, messages=HELLO).usage.output_tokens == 1
    with pytest.raises(anthropic.NotFoundError, match="gpt-7") as raised:
        client.models.retrieve("gpt-7")
    assert raised.value.request_id


async def test_async_client_gets_same_answers(fast: Home):
    async with anthropic.AsyncAnthropic(base_url=fast.url, api_key="any", max_retries=0) as client:
        message = await client.messages.create(model="default", max_tokens=8, messages=HELLO)
        assert message.usage.output_tokens == 8
        async with client.messages.stream(model="default", max_tokens=8, messages=HELLO) as stream:
            pieces = [piece async for piece in stream.text_stream]
            final = await stream.get_final_message()
    assert "".join(pieces) == text_of(final)


def idle(running: Home) -> bool:
    """Return whether the engine reports all its slots as idle."""
    url = running.pool()["replicas"][0]["url"]
    _status, slots = running.ask("GET", "/slots", port=int(url.rpartition(":")[2]))
    return not any(slot["is_processing"] for slot in slots)


def close_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="default", max_tokens=LONG, messages=HELLO) as stream:
        next(iter(stream.text_stream))


def time_out(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APITimeoutError):
        client.with_options(timeout=0.3).messages.create(model="default", max_tokens=LONG, messages=HELLO)


@pytest.mark.parametrize("disconnect", [close_stream, time_out])
def test_client_disconnect_frees_engine_slot(slow: Home, disconnect: Callable[[anthropic.Anthropic], None]):
    before = len(slow.ask("GET", "/v2/tasks")[1]["tasks"])
    with anthropic.Anthropic(base_url=slow.url, api_key="any", max_retries=0) as client:
        disconnect(client)
    slow.until(lambda: idle(slow))
    newest, *others = slow.ask("GET", "/v2/tasks")[1]["tasks"]
    assert (newest["state"], len(others)) == ("cancelled", before)
    assert newest["usage"]["tokens_out"] < LONG
