"""What a tiny model cannot be brought to do, with OpenAI's own Python package: tools, stalls, a key.

The queen's /v1 on a real socket, over a scripted engine.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import openai
import pytest
import trio
from openai import OpenAI

from llama_orch.http.server.gate import Access
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
ASKED: dict[str, Any] = {"role": "user", "content": "What is the weather?"}


def piece(index: int, **function: str) -> dict[str, object]:
    """A chunk with a piece of a tool call; its first one brings the id."""
    named = {"id": f"c{index}", "type": "function"} if "name" in function else {}
    return delta(tool_calls=[{"index": index, **named, "function": function}])


CALLS = [
    delta(role="assistant", content=None),
    delta(content="I look."),
    piece(0, name="get_weather", arguments=""),
    piece(0, arguments='{"place": '),
    piece(0, arguments='"Bern"}'),
    piece(1, name="get_weather", arguments='{"place": "Zürich"}'),
    delta("tool_calls"),
    USAGE_CHUNK,
]
FOUND = [("c0", "get_weather", '{"place": "Bern"}'), ("c1", "get_weather", '{"place": "Zürich"}')]


def client_of(url: str, key: str = "any") -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def calls_of(message: Any) -> list[tuple[str, str, str]]:
    return [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls]


def ask(client: OpenAI, *messages: Any, **more: Any) -> Any:
    wanted: Any = {"model": "tiny", "messages": messages or [ASKED], **more}
    return client.chat.completions.create(**wanted)


async def beside(act: Callable[..., Any], *given: Any) -> Any:
    """What `act` returns, which uses a client that blocks."""
    return await trio.to_thread.run_sync(act, *given)


async def test_tools_are_called_and_what_they_answer_reaches_the_model():
    async with listening() as (running, url):
        running.engine.script = CALLS
        client = client_of(url)
        answer = (await beside(partial(ask, client, tools=[WEATHER]))).choices[0]
        assert (answer.finish_reason, answer.message.content) == ("tool_calls", "I look.")
        assert calls_of(answer.message) == FOUND

        said = answer.message.model_dump(exclude_none=True)
        results = [{"role": "tool", "tool_call_id": name, "content": "rain"} for name, _, _ in FOUND]
        await beside(partial(ask, client, ASKED, said, *results, tools=[WEATHER]))
        client.close()
        assert running.engine.body["messages"] == [ASKED, said, *results]
        assert running.engine.body["tools"] == [WEATHER]


async def test_a_stream_of_tool_calls_is_put_together_by_the_package():
    def stream(url: str) -> Any:
        wanted: Any = {"model": "tiny", "messages": [ASKED], "tools": [WEATHER]}
        with client_of(url) as client, client.chat.completions.stream(**wanted) as events:
            return events.get_final_completion()

    async with listening() as (running, url):
        running.engine.script = CALLS
        assert calls_of((await beside(stream, url)).choices[0].message) == FOUND


@pytest.mark.parametrize(("words", "code"), [("midway", "WORKER_RESET"), ("stall", "DECODE_TIMEOUT")])
async def test_an_engine_that_fails_midway_raises_in_the_middle_of_the_stream(words: str, code: str):
    def stream(url: str) -> tuple[int, str | None]:
        """How many chunks came, and the code of the error that ended them."""
        with client_of(url) as client:
            events = ask(client, {"role": "user", "content": words}, stream=True)
            begun = [next(events), next(events)]
            with pytest.raises(openai.APIError) as failure:
                next(events)
        return len(begun), failure.value.code

    async with listening() as (running, url):
        if words == "stall":
            running.queen.runs.limits = StallLimits(idle_s=0.1)
        assert await beside(stream, url) == (2, code)
        await wait_for_free_slots(running.queen)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails_at_once_is_a_server_error(stream: bool):
    def fail(url: str) -> None:
        with client_of(url) as client:
            ask(client, {"role": "user", "content": "break"}, stream=stream)

    async with listening() as (_running, url):
        with pytest.raises(openai.InternalServerError, match="out of memory") as failure:
            await beside(fail, url)
        assert (failure.value.status_code, failure.value.code) == (502, "WORKER_RESET")


async def test_the_key_is_the_queens_token():
    def greet(url: str, key: str) -> Any:
        with client_of(url, key) as client:
            return ask(client).choices[0].message.content

    async with listening(Access(Secret(TOKEN))) as (_running, url):
        with pytest.raises(openai.AuthenticationError) as refusal:
            await beside(greet, url, "wrong")
        assert refusal.value.code == "BAD_TOKEN"
        assert await beside(greet, url, TOKEN) == "Hello"
