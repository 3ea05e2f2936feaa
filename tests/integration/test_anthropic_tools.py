"""The anthropic package against the queen's /v1 with a scripted engine: tools, thinking, overload and the API key.

A tiny real model cannot produce these answers. The queen listens on a real socket.
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

from llama_orch.http.server.access import Access
from llama_orch.http.server.serving import serve
from llama_orch.settings.types import Secret
from tests.unit.queen_rbee.api.v1.test_messages_api import fill_queue
from tests.unit.queen_rbee.messages_examples import call
from tests.unit.queen_rbee.queen_core import TIMEOUT_S, QueenCore, wait_for_free_slots
from tests.unit.queen_rbee.scripted_openai import USAGE_CHUNK, delta
from tests.unit.queen_rbee.v1_client import V1Server, build_gate, v1_server

TOKEN = "0123456789abcdef"
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "Says what the weather is.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}},
}
QUESTION = "What is the weather?"
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


STALLING_REQUEST = {
    "model": "tiny",
    "max_tokens": 5,
    "messages": [{"role": "user", "content": "stall"}],
    "stream": True,
}


@asynccontextmanager
async def listening(access: Access | None = None, **options: Any) -> AsyncIterator[tuple[V1Server, str]]:
    """Serve the queen's /v1 on a socket; yield the queen and its URL."""
    stop = trio.Event()
    async with v1_server(**options) as running, trio.open_nursery() as nursery:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            gate = build_gate(running.queen, access)
            await nursery.start(partial(serve, gate, [listener.dup()], shutdown=stop, drain_s=TIMEOUT_S))
            yield running, f"http://127.0.0.1:{listener.getsockname()[1]}"
            stop.set()


def client_of(url: str, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(**{"base_url": url, "api_key": "any", "max_retries": 0, **options})


def user_message(words: str) -> MessageParam:
    return {"role": "user", "content": words}


async def ask(client: anthropic.AsyncAnthropic, words: str = "hello", **more: Any) -> anthropic.types.Message:
    body: Any = {"messages": [user_message(words)], "tools": [WEATHER], **more}
    message: anthropic.types.Message = await client.messages.create(model="tiny", max_tokens=100, **body)
    return message


async def test_tool_calls_and_results_round_trip():
    async with listening() as (running, url), client_of(url) as client:
        running.engine.script = CALLS
        message = await ask(client, QUESTION)
        assert message.stop_reason == "tool_use"
        thought, text, *uses = message.content
        assert (thought.type, text.type) == ("thinking", "text")
        calls = [use for use in uses if use.type == "tool_use"]
        assert [call.input for call in calls] == [{"place": "Bern"}, {"place": "Zürich"}]

        results: Any = [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in calls]
        await ask(client, messages=[user_message(QUESTION), message.to_param(), {"role": "user", "content": results}])
    messages: Any = running.engine.body["messages"]
    _question, assistant, *tools = messages
    assert [call["id"] for call in assistant["tool_calls"]] == ["c1", "c2"]
    assert [(tool["role"], tool["tool_call_id"], tool["content"]) for tool in tools] == [
        ("tool", "c1", "rain"),
        ("tool", "c2", "rain"),
    ]


async def test_streamed_tool_use_equals_whole_message():
    async with listening() as (running, url), client_of(url) as client:
        running.engine.script = CALLS
        whole = await ask(client, QUESTION)
        stream = client.messages.stream(
            model="tiny", max_tokens=100, messages=[user_message(QUESTION)], tools=[WEATHER]
        )
        async with stream as events:
            final = await events.get_final_message()
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    assert (final.stop_reason, final.usage.to_dict()) == (whole.stop_reason, whole.usage.to_dict())


async def test_full_queue_raises_rate_limit_error_with_retry_after():
    async with listening(capacity=1) as (running, url), client_of(url) as client:
        lines = await fill_queue(running)
        with pytest.raises(anthropic.RateLimitError) as raised:
            await ask(client)
        for line in lines:
            line.disconnect.set()
        await wait_for_free_slots(running.queen)
    assert (raised.value.type, raised.value.error_code) == ("rate_limit_error", "ADMISSION_REJECT")
    assert int(raised.value.response.headers["retry-after"]) >= 1


async def test_client_that_honours_retry_after_is_admitted():
    async with (
        listening(capacity=1) as (running, url),
        client_of(url, max_retries=5) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):  # two get a slot, one waits
            running.start("/v1/messages", STALLING_REQUEST)
        nursery.start_soon(end_all_after_refusal, running.queen)
        message = await ask(client)
    assert message.stop_reason == "end_turn"


async def end_all_after_refusal(queen: QueenCore) -> None:
    """Wait until a client is refused, then cancel all others."""
    refused = queen.metrics.rejected.labels("", "ADMISSION_REJECT")
    with trio.fail_after(TIMEOUT_S):
        while not refused._value.get():  # noqa: ASYNC110 -- a counter rings no bell
            await trio.sleep(0.01)
    for task in [*queen.queue.order(), *queen.runs._attempts]:
        queen.dispatcher.cancel(task)


async def test_stopping_queen_raises_overloaded_error():
    async with listening() as (running, url), client_of(url) as client:
        running.queen.intake.close()
        with pytest.raises(anthropic.OverloadedError) as raised:
            await ask(client)
    assert raised.value.type == "overloaded_error"


async def test_engine_failure_midway_raises_api_error():
    async with listening() as (_running, url), client_of(url) as client:
        stream = client.messages.stream(model="tiny", max_tokens=5, messages=[user_message("midway")])
        async with stream as events:
            with pytest.raises(anthropic.APIStatusError) as raised:
                await events.until_done()
    assert (raised.value.type, raised.value.api_message) == ("api_error", "out of memory")


async def test_silent_engine_raises_gateway_timeout():
    async with listening(short_limits=True) as (_running, url), client_of(url) as client:
        with pytest.raises(anthropic.GatewayTimeoutError) as raised:
            await ask(client, "silence")
    assert raised.value.type == "timeout_error"


@pytest.mark.parametrize(
    "credentials",
    [
        {"api_key": TOKEN},
        {"auth_token": TOKEN, "api_key": None},
        {"api_key": "other", "default_headers": {"X-Api-Key": TOKEN}},
    ],
)
async def test_token_is_accepted_as_api_key(credentials: dict[str, Any]):
    async with listening(Access(Secret(TOKEN))) as (_running, url):
        async with client_of(url, **credentials) as client:
            assert (await ask(client)).stop_reason == "end_turn"
        async with client_of(url, api_key="wrong") as client:
            with pytest.raises(anthropic.AuthenticationError) as raised:
                await ask(client)
    assert (raised.value.type, raised.value.error_code) == ("authentication_error", "BAD_TOKEN")


async def test_closing_stream_cancels_task():
    async with listening() as (running, url), client_of(url) as client:
        with trio.fail_after(TIMEOUT_S):
            async with client.messages.stream(model="tiny", max_tokens=5, messages=[user_message("stall")]) as stream:
                await anext(stream)
        await wait_for_free_slots(running.queen)
        (task,) = running.queen.book.newest_first()
    assert task.state == "cancelled"
