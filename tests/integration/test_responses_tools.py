"""The openai package's Responses API against the queen's /v1 with a scripted engine: tools, reasoning and failures.

A tiny real model cannot produce these answers. The queen listens on a real socket.
"""

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.integration.test_anthropic_tools import CALLS, listening
from tests.integration.test_openai_tools import client_of, in_thread
from tests.unit.queen_rbee.queen_core import wait_for_free_slots

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    "strict": False,
}
QUESTION = {"role": "user", "content": "What is the weather?"}
EXPECTED_CALLS = [("c1", "get_weather", '{"place": "Bern"}'), ("c2", "get_weather", '{"place": "Zürich"}')]


def ask(url: str, *items: Any, **more: Any) -> Any:
    """Return the response of the package's stream helper."""
    with client_of(url) as client, streamed(client, *items, **more) as events:
        events.until_done()
        return events.get_final_response()


def streamed(client: OpenAI, *items: Any, **more: Any) -> Any:
    body: Any = {"model": "tiny", "input": [QUESTION, *items], "tools": [WEATHER], **more}
    return client.responses.stream(**body)


async def test_reasoning_calls_and_results_round_trip():
    async with listening() as (running, url):
        running.engine.script = CALLS
        answer = await in_thread(ask, url)
        reasoning, message, *calls = answer.output
        assert [part.text for part in reasoning.content] == ["Two places."]
        assert (answer.output_text, message.status) == ("I look.", "completed")
        assert [(call.call_id, call.name, call.arguments) for call in calls] == EXPECTED_CALLS

        items = [item.to_dict() for item in answer.output]
        results = [{"type": "function_call_output", "call_id": name, "output": "rain"} for name, _, _ in EXPECTED_CALLS]
        await in_thread(ask, url, *items, *results)
        sent: Any = running.engine.body["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant", "tool", "tool"]
    assert (sent[1]["content"], sent[1]["reasoning_content"]) == ("I look.", "Two places.")
    assert [call["id"] for call in sent[1]["tool_calls"]] == ["c1", "c2"]
    assert [turn["content"] for turn in sent[2:]] == ["rain", "rain"]


async def test_engine_failure_midway_is_an_error_event_and_a_failed_response():
    def stream(url: str) -> list[Any]:
        with client_of(url) as client:
            body: Any = {"model": "tiny", "input": "midway", "stream": True}
            return list(client.responses.create(**body))

    async with listening() as (running, url):
        *_, error, failed = await in_thread(stream, url)
        await wait_for_free_slots(running.queen)
    assert (error.type, error.code) == ("error", "WORKER_RESET")
    assert (failed.type, failed.response.status) == ("response.failed", "failed")
    assert "out of memory" in error.message


async def test_immediate_engine_failure_is_server_error():
    async with listening() as (_running, url):
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            await in_thread(ask, url, {"role": "user", "content": "break"})
