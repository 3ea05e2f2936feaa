"""Anthropic's own Python package against a whole HOME_PROFILE with a real llama-server, synchronous and not."""

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
    """The package's synchronous client."""
    with anthropic.Anthropic(base_url=fast.url, api_key="any", max_retries=0) as made:
        yield made


def text_of(message: anthropic.types.Message) -> str:
    """The one text of `message`."""
    (block,) = message.content
    assert block.type == "text"
    return block.text


def test_a_message_is_answered_with_the_engines_own_counts(client: anthropic.Anthropic):
    message = client.messages.create(
        model="default", max_tokens=16, messages=HELLO, system="be brief", extra_headers={"X-Correlation-Id": "mine"}
    )
    assert text_of(message)
    assert (message.role, message.stop_reason, message.usage.output_tokens) == ("assistant", "max_tokens", 16)
    assert message.usage.input_tokens > 0
    assert message._request_id == "mine"


def test_a_stream_says_the_same_by_and_by_as_at_its_end(client: anthropic.Anthropic):
    with client.messages.stream(model="default", max_tokens=24, messages=HELLO) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == text_of(message)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 24)
    assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) > 0


def test_the_events_of_a_stream_come_in_anthropics_order(client: anthropic.Anthropic):
    stream = client.messages.create(model="default", max_tokens=3, messages=HELLO, stream=True)
    kinds = [event.type for event in stream]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_a_stream_begins_with_the_tokens_of_its_prompt(client: anthropic.Anthropic):
    for words in ("hello", "a prompt that is new and that no slot has in its cache"):
        asked: Any = {"model": "default", "max_tokens": 3, "messages": [{"role": "user", "content": words}]}
        events = list(client.messages.create(**asked, stream=True))
        begins, ends = events[0], events[-2]
        assert begins.type == "message_start"
        assert ends.type == "message_delta"
        first, last = begins.message.usage, ends.usage
        assert first.input_tokens + (first.cache_read_input_tokens or 0) > 0
        assert (first.input_tokens, first.cache_read_input_tokens) == (last.input_tokens, last.cache_read_input_tokens)


def test_blocks_turns_and_an_answer_that_is_begun_reach_the_model(client: anthropic.Anthropic):
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


def test_all_that_a_client_may_wish_for_is_taken(client: anthropic.Anthropic):
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


def test_a_stop_sequence_ends_the_answer_before_it(client: anthropic.Anthropic):
    message = client.messages.create(model="default", max_tokens=200, messages=HELLO, stop_sequences=["e"])
    assert message.stop_reason in ("end_turn", "stop_sequence")
    assert "e" not in "".join(block.text for block in message.content if block.type == "text")


def test_an_answer_follows_the_schema_that_is_wanted(client: anthropic.Anthropic):
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


def test_tokens_are_counted_as_the_answers_usage_counts_them(client: anthropic.Anthropic):
    counted = client.messages.count_tokens(model="default", messages=HELLO, system="be brief")
    usage = client.messages.create(model="default", max_tokens=1, messages=HELLO, system="be brief").usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_an_answer_that_fills_the_context_says_so(client: anthropic.Anthropic):
    words = "hello " * 980
    message = client.messages.create(
        model="default", max_tokens=LONG, messages=[{"role": "user", "content": words}], stop_sequences=["never said"]
    )
    assert message.stop_reason == "model_context_window_exceeded"


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ({"messages": [{"role": "user"}]}, "BadRequestError", "messages.0.content: is required"),
        ({"max_tokens": 0}, "BadRequestError", "max_tokens: must be at least 1"),
        ({"messages": [{"role": "user", "content": "hello " * 3000}]}, "BadRequestError", "context"),
        ({"model": "gpt-7"}, "NotFoundError", "gpt-7"),
    ],
)
def test_what_is_wrong_is_raised_as_what_it_is(
    client: anthropic.Anthropic, wrong: dict[str, Any], kind: str, words: str
):
    request: Any = {"model": "default", "max_tokens": 4, "messages": HELLO, **wrong}
    for streamed in (False, True):
        with pytest.raises(anthropic.APIStatusError) as raised:
            client.messages.create(**request, stream=streamed)
        assert type(raised.value).__name__ == kind
        assert words in str(raised.value.api_message)
        assert raised.value.request_id


def test_images_that_the_model_cannot_see_are_refused_by_the_engine_and_nothing_breaks(client: anthropic.Anthropic):
    source = {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}
    shown: Any = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    with pytest.raises(anthropic.BadRequestError, match="image input is not supported"):
        client.messages.create(model="default", max_tokens=4, messages=shown)
    assert client.messages.create(model="default", max_tokens=1, messages=HELLO).usage.output_tokens == 1


def test_models_are_listed_page_by_page_and_found_by_their_names(client: anthropic.Anthropic):
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


async def test_the_asynchronous_client_gets_the_same(fast: Home):
    async with anthropic.AsyncAnthropic(base_url=fast.url, api_key="any", max_retries=0) as client:
        message = await client.messages.create(model="default", max_tokens=8, messages=HELLO)
        assert message.usage.output_tokens == 8
        async with client.messages.stream(model="default", max_tokens=8, messages=HELLO) as stream:
            pieces = [piece async for piece in stream.text_stream]
            final = await stream.get_final_message()
    assert "".join(pieces) == text_of(final)


def idle(running: Home) -> bool:
    """Whether the engine itself says that none of its slots is at work."""
    url = running.pool()["replicas"][0]["url"]
    _status, slots = running.ask("GET", "/slots", port=int(url.rpartition(":")[2]))
    return not any(slot["is_processing"] for slot in slots)


def leave_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="default", max_tokens=LONG, messages=HELLO) as stream:
        next(iter(stream.text_stream))


def leave_whole(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APITimeoutError):
        client.with_options(timeout=0.3).messages.create(model="default", max_tokens=LONG, messages=HELLO)


@pytest.mark.parametrize("leave", [leave_stream, leave_whole])
def test_a_client_that_leaves_frees_the_engines_slot(slow: Home, leave: Callable[[anthropic.Anthropic], None]):
    before = len(slow.ask("GET", "/v2/tasks")[1]["tasks"])
    with anthropic.Anthropic(base_url=slow.url, api_key="any", max_retries=0) as client:
        leave(client)
    slow.until(lambda: idle(slow))
    newest, *others = slow.ask("GET", "/v2/tasks")[1]["tasks"]
    assert (newest["state"], len(others)) == ("cancelled", before)
    assert newest["usage"]["tokens_out"] < LONG
