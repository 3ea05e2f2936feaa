"""What a tiny model cannot be brought to do, with Anthropic's own Python package: tools, thoughts, overload, a key.

The queen's /v1 on a real socket, over a scripted engine.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anthropic
import pytest
import trio
from anthropic.types import MessageParam, ToolParam

from llama_orch.http.server.gate import Access
from llama_orch.http.server.serving import serve
from llama_orch.settings.types import Secret
from tests.unit.queen_rbee.api.v1.test_messages_api import fill_queue
from tests.unit.queen_rbee.messages_examples import call
from tests.unit.queen_rbee.queen_core import TIMEOUT_S, wait_for_free_slots
from tests.unit.queen_rbee.scripted_openai import USAGE_CHUNK, delta
from tests.unit.queen_rbee.v1_client import V1Server, build_gate, v1_server

TOKEN = "0123456789abcdef"
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "Says what the weather is.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}},
}
ASKED = "What is the weather?"
CALLS = [
    delta(reasoning_content="Two places."),
    delta(content="I look."),
    delta(**call(0, id="c1", name="get_weather")),
    delta(**call(0, '{"place": ')),
    delta(**call(0, '"Bern"}')),
    delta(**call(1, '{"place": "Zürich"}', id="c2", name="get_weather")),
    delta("tool_calls"),
    USAGE_CHUNK,
]


BUSY = {"model": "tiny", "max_tokens": 5, "messages": [{"role": "user", "content": "stall"}], "stream": True}


@asynccontextmanager
async def listening(access: Access | None = None, **options: Any) -> AsyncIterator[tuple[V1Server, str]]:
    """The queen's /v1 on a socket, and its URL."""
    stop = trio.Event()
    async with v1_server(**options) as running, trio.open_nursery() as nursery:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            gate = build_gate(running.queen, access)
            await nursery.start(partial(serve, gate, [listener.dup()], shutdown=stop, drain_s=TIMEOUT_S))
            yield running, f"http://127.0.0.1:{listener.getsockname()[1]}"
            stop.set()


def client_of(url: str, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(**{"base_url": url, "api_key": "any", "max_retries": 0, **options})


def say(words: str) -> MessageParam:
    return {"role": "user", "content": words}


async def ask(client: anthropic.AsyncAnthropic, words: str = "hello", **more: Any) -> anthropic.types.Message:
    wanted: Any = {"messages": [say(words)], "tools": [WEATHER], **more}
    message: anthropic.types.Message = await client.messages.create(model="tiny", max_tokens=100, **wanted)
    return message


async def test_tools_are_used_and_what_they_answer_reaches_the_model():
    async with listening() as (running, url), client_of(url) as client:
        running.engine.script = CALLS
        message = await ask(client, ASKED)
        assert message.stop_reason == "tool_use"
        thought, text, *uses = message.content
        assert (thought.type, text.type) == ("thinking", "text")
        calls = [use for use in uses if use.type == "tool_use"]
        assert [call.input for call in calls] == [{"place": "Bern"}, {"place": "Zürich"}]

        results: Any = [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in calls]
        await ask(client, messages=[say(ASKED), message.to_param(), {"role": "user", "content": results}])
    told: Any = running.engine.body["messages"]
    _asked, assistant, *tools = told
    assert [call["id"] for call in assistant["tool_calls"]] == ["c1", "c2"]
    assert [(tool["role"], tool["tool_call_id"], tool["content"]) for tool in tools] == [
        ("tool", "c1", "rain"),
        ("tool", "c2", "rain"),
    ]


async def test_a_streamed_tools_use_is_the_same_message():
    async with listening() as (running, url), client_of(url) as client:
        running.engine.script = CALLS
        whole = await ask(client, ASKED)
        stream = client.messages.stream(model="tiny", max_tokens=100, messages=[say(ASKED)], tools=[WEATHER])
        async with stream as events:
            final = await events.get_final_message()
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    assert (final.stop_reason, final.usage.to_dict()) == (whole.stop_reason, whole.usage.to_dict())


async def test_a_full_queue_is_a_rate_limit_error_that_says_when_to_come_back():
    async with listening(capacity=1) as (running, url), client_of(url) as client:
        lines = await fill_queue(running)
        with pytest.raises(anthropic.RateLimitError) as raised:
            await ask(client)
        for line in lines:
            line.disconnect.set()
        await wait_for_free_slots(running.queen)
    assert (raised.value.type, raised.value.error_code) == ("rate_limit_error", "ADMISSION_REJECT")
    assert int(raised.value.response.headers["retry-after"]) >= 1


async def test_a_client_that_tries_again_as_it_is_told_gets_in():
    async with listening(capacity=1) as (running, url), client_of(url, max_retries=5) as client:
        for _ in range(3):
            running.start("/v1/messages", BUSY)  # each ends by itself, in a time limit
        message = await ask(client)
    assert message.stop_reason == "end_turn"


async def test_a_queen_that_stops_is_overloaded():
    async with listening() as (running, url), client_of(url) as client:
        running.queen.intake.close()
        with pytest.raises(anthropic.OverloadedError) as raised:
            await ask(client)
    assert raised.value.type == "overloaded_error"


async def test_an_engine_that_fails_midway_raises_what_it_is():
    async with listening() as (_running, url), client_of(url) as client:
        stream = client.messages.stream(model="tiny", max_tokens=5, messages=[say("midway")])
        async with stream as events:
            with pytest.raises(anthropic.APIStatusError) as raised:
                await events.until_done()
    assert (raised.value.type, raised.value.api_message) == ("api_error", "out of memory")


async def test_an_engine_that_says_nothing_is_a_timeout():
    async with listening(short_limits=True) as (_running, url), client_of(url) as client:
        with pytest.raises(anthropic.GatewayTimeoutError) as raised:
            await ask(client, "silence")
    assert raised.value.type == "timeout_error"


@pytest.mark.parametrize(
    "how",
    [
        {"api_key": TOKEN},
        {"auth_token": TOKEN, "api_key": None},
        {"api_key": "other", "default_headers": {"X-Api-Key": TOKEN}},
    ],
)
async def test_the_token_is_the_clients_key(how: dict[str, Any]):
    async with listening(Access(Secret(TOKEN))) as (_running, url):
        async with client_of(url, **how) as client:
            assert (await ask(client)).stop_reason == "end_turn"
        async with client_of(url, api_key="wrong") as client:
            with pytest.raises(anthropic.AuthenticationError) as raised:
                await ask(client)
    assert (raised.value.type, raised.value.error_code) == ("authentication_error", "BAD_TOKEN")


async def test_leaving_a_stream_ends_its_task_at_once():
    async with listening() as (running, url), client_of(url) as client:
        with trio.fail_after(TIMEOUT_S):
            async with client.messages.stream(model="tiny", max_tokens=5, messages=[say("stall")]) as stream:
                await anext(stream)
        await wait_for_free_slots(running.queen)
        (task,) = running.queen.book.newest_first()
    assert task.state == "cancelled"
