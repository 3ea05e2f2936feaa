"""The openai package against the queen's /v1 with a scripted engine: tools, stalls and the API key.

A tiny real model cannot produce these answers. The queen listens on a real socket.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import openai
import pytest
import trio
from openai import OpenAI

from llama_orch.http.server.access import Access
from llama_orch.settings.types import Secret
from queen_rbee.dispatch.stalls import StallLimits
from tests.integration.test_anthropic_tools import listening
from tests.unit.queen_rbee.queen_core import wait_for_free_slots
from tests.unit.queen_rbee.scripted_openai import USAGE_CHUNK, delta

TOKEN = "0123456789abcdef"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
QUESTION: dict[str, Any] = {"role": "user", "content": "What is the weather?"}


def tool_call_piece(index: int, **function: str) -> dict[str, object]:
    """Return a chunk with one piece of a tool call. The first piece, which has the name, also has the id."""
    named = {"id": f"c{index}", "type": "function"} if "name" in function else {}
    return delta(tool_calls=[{"index": index, **named, "function": function}])


CALLS = [
    delta(role="assistant", content=None),
    delta(content="I look."),
    tool_call_piece(0, name="get_weather", arguments=""),
    tool_call_piece(0, arguments='{"place": '),
    tool_call_piece(0, arguments='"Bern"}'),
    tool_call_piece(1, name="get_weather", arguments='{"place": "Zürich"}'),
    delta("tool_calls"),
    USAGE_CHUNK,
]
EXPECTED_CALLS = [("c0", "get_weather", '{"place": "Bern"}'), ("c1", "get_weather", '{"place": "Zürich"}')]


def client_of(url: str, key: str = "any") -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def calls_of(message: Any) -> list[tuple[str, str, str]]:
    return [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls]


def ask(client: OpenAI, *messages: Any, **more: Any) -> Any:
    body: Any = {"model": "tiny", "messages": messages or [QUESTION], **more}
    return client.chat.completions.create(**body)


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run `function`, which uses a blocking client, in a thread and return its result."""
    return await trio.to_thread.run_sync(function, *arguments)


async def test_tool_calls_and_results_round_trip():
    async with listening() as (running, url):
        running.engine.script = CALLS
        client = client_of(url)
        answer = (await in_thread(partial(ask, client, tools=[WEATHER]))).choices[0]
        assert (answer.finish_reason, answer.message.content) == ("tool_calls", "I look.")
        assert calls_of(answer.message) == EXPECTED_CALLS

        assistant = answer.message.model_dump(exclude_none=True)
        results = [{"role": "tool", "tool_call_id": name, "content": "rain"} for name, _, _ in EXPECTED_CALLS]
        await in_thread(partial(ask, client, QUESTION, assistant, *results, tools=[WEATHER]))
        client.close()
        assert running.engine.body["messages"] == [QUESTION, assistant, *results]
        assert running.engine.body["tools"] == [WEATHER]


async def test_package_assembles_streamed_tool_calls():
    def stream(url: str) -> Any:
        body: Any = {"model": "tiny", "messages": [QUESTION], "tools": [WEATHER]}
        with client_of(url) as client, client.chat.completions.stream(**body) as events:
            return events.get_final_completion()

    async with listening() as (running, url):
        running.engine.script = CALLS
        assert calls_of((await in_thread(stream, url)).choices[0].message) == EXPECTED_CALLS


@pytest.mark.parametrize(("words", "code"), [("midway", "WORKER_RESET"), ("stall", "DECODE_TIMEOUT")])
async def test_engine_failure_midway_raises_during_stream(words: str, code: str):
    def stream(url: str) -> tuple[int, str | None]:
        """Return the number of chunks before the error, and the code of the error."""
        with client_of(url) as client:
            events = ask(client, {"role": "user", "content": words}, stream=True)
            chunks = [next(events), next(events)]
            with pytest.raises(openai.APIError) as failure:
                next(events)
        return len(chunks), failure.value.code

    async with listening() as (running, url):
        if words == "stall":
            running.queen.runs.limits = StallLimits(idle_s=0.1)
        assert await in_thread(stream, url) == (2, code)
        await wait_for_free_slots(running.queen)


@pytest.mark.parametrize("stream", [False, True])
async def test_immediate_engine_failure_is_server_error(stream: bool):
    def fail(url: str) -> None:
        with client_of(url) as client:
            ask(client, {"role": "user", "content": "break"}, stream=stream)

    async with listening() as (_running, url):
        with pytest.raises(openai.InternalServerError, match="out of memory") as failure:
            await in_thread(fail, url)
        assert (failure.value.status_code, failure.value.code) == (502, "WORKER_RESET")


async def test_token_is_accepted_as_api_key():
    def greet(url: str, key: str) -> Any:
        with client_of(url, key) as client:
            return ask(client).choices[0].message.content

    async with listening(Access(Secret(TOKEN))) as (_running, url):
        with pytest.raises(openai.AuthenticationError) as refusal:
            await in_thread(greet, url, "wrong")
        assert refusal.value.code == "BAD_TOKEN"
        assert await in_thread(greet, url, TOKEN) == "Hello"
