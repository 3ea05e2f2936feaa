"""/v1/messages over a scripted engine: streams, messages, and errors in Anthropic's format."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.http.server.access import Access
from llama_orch.settings.types import Secret
from queen_rbee.api.v1 import answers
from queen_rbee.api.v1.messages.events import MessageEvent
from tests.unit.queen_rbee.messages_examples import WEATHER, call
from tests.unit.queen_rbee.queen_core import add_vanishing_replicas, wait_for_free_slots
from tests.unit.queen_rbee.scripted_openai import USAGE_CHUNK, delta
from tests.unit.queen_rbee.v1_client import V1Exchange, V1Server, build_gate, v1_server

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
DAEMONS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def user_says(words: str = "hello", **fields: object) -> dict[str, Any]:
    """Return a request in which the user says `words`."""
    return {"model": "tiny", "max_tokens": 8, "messages": [{"role": "user", "content": words}], **fields}


def events(line: V1Exchange) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, data) of each event."""
    frames = [frame.split("\n") for frame in line.body.decode().split("\n\n") if frame]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in frames]


def names(line: V1Exchange) -> list[str]:
    return [name for name, _data in events(line)]


async def fill_queue(running: V1Server) -> list[V1Exchange]:
    """Fill a queue of capacity one: start two messages whose answers never end, and queue a third."""
    found = []
    for _ in range(2):
        found.append(running.start(MESSAGES, user_says("stall", stream=True)))
        await found[-1].wait_for(b"message_start")
    found.append(running.start(MESSAGES, user_says()))
    await trio.testing.wait_all_tasks_blocked()
    return found


async def test_message_has_engine_token_counts():
    async with v1_server() as running:
        line = await running.ask(MESSAGES, user_says(), x_correlation_id="mine")
    assert (line.status, line.headers["request-id"], line.headers["x-llama-orch-pool"]) == (200, "mine", "p")
    assert line.json["id"].startswith("msg_")
    assert {key: value for key, value in line.json.items() if key != "id"} == {
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 5,
            "output_tokens": 2,
        },
    }


async def test_engine_gets_openai_chat_stream_without_anthropic_fields():
    async with v1_server() as running:
        fields: dict[str, Any] = {"system": "Be kind.", "stop_sequences": ["END"], "metadata": {"user_id": "secret"}}
        await running.ask(MESSAGES, user_says(**fields))
        asked = running.engine.last_request
    assert b"POST /v1/chat/completions" in asked
    for sent in (
        b'"stream": true',
        b'"stop": ["END"]',
        b'{"role": "system", "content": "Be kind."}',
        b'"max_tokens": 8',
    ):
        assert sent in asked
    for absent in (b"secret", b"stop_sequences", b'"system":'):
        assert absent not in asked


async def test_stream_has_only_anthropic_events():
    async with v1_server() as running:
        line = await running.ask(MESSAGES, user_says(stream=True))
    assert line.headers["content-type"].startswith("text/event-stream")
    assert names(line) == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(name == data["type"] for name, data in events(line))


async def test_tool_call_is_returned_as_tool_use():
    use = [
        delta(**call(0, id="c1", name="get_weather")),
        delta(**call(0, '{"place": "Bern"}')),
        delta("tool_calls"),
        USAGE_CHUNK,
    ]
    async with v1_server() as running:
        running.engine.script = use
        whole = await running.ask(MESSAGES, user_says(tools=[WEATHER]))
        stream = await running.ask(MESSAGES, user_says(tools=[WEATHER], stream=True))
    assert whole.json["content"] == [
        {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"place": "Bern"}},
    ]
    assert whole.json["stop_reason"] == "tool_use"
    assert (names(stream)[1], names(stream)[-2]) == ("content_block_start", "message_delta")


@pytest.mark.parametrize(
    ("thinking", "kinds"),
    [
        ({}, ["thinking", "text"]),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, ["thinking", "text"]),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, ["text"]),
        ({"thinking": {"type": "disabled"}}, ["text"]),
    ],
)
async def test_thoughts_are_shown_unless_disabled(thinking: dict[str, Any], kinds: list[str]):
    async with v1_server() as running:
        running.engine.script = [delta(reasoning_content="hm"), delta(content="so"), delta("stop"), USAGE_CHUNK]
        line = await running.ask(MESSAGES, user_says(**thinking))
    assert [block["type"] for block in line.json["content"]] == kinds


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("words", "status", "kind"),
    [
        ("refuse", 400, "invalid_request_error"),
        ("break", 502, "api_error"),
        ("silence", 504, "timeout_error"),
    ],
)
async def test_early_failure_is_http_status(words: str, status: int, kind: str, streamed: bool):
    async with v1_server(short_limits=words == "silence") as running:
        line = await running.ask(MESSAGES, user_says(words, stream=streamed), x_correlation_id="mine")
        await wait_for_free_slots(running.queen)
    assert (line.status, line.json["type"], line.json["error"]["type"]) == (status, "error", kind)
    assert (line.json["request_id"], line.headers["request-id"]) == ("mine", "mine")


@pytest.mark.parametrize(("words", "kind"), [("midway", "api_error"), ("stall", "timeout_error")])
async def test_late_failure_ends_stream_with_error_event(words: str, kind: str):
    async with v1_server(short_limits=words == "stall") as running:
        line = await running.ask(MESSAGES, user_says(words, stream=True), x_correlation_id="mine")
        await wait_for_free_slots(running.queen)
    name, data = events(line)[-1]
    assert (line.status, name, data["error"]["type"], data["request_id"]) == (200, "error", kind, "mine")
    assert "message_stop" not in names(line)


@pytest.mark.parametrize("streamed", [True, False])
async def test_unreadable_answer_is_an_error(streamed: bool):
    async with v1_server() as running:
        running.engine.script = [delta(content="Hel"), delta(content={"not": "text"}), delta("stop"), USAGE_CHUNK]
        line = await running.ask(MESSAGES, user_says(stream=streamed))
    error = events(line)[-1][1] if streamed else line.json
    assert (error["type"], error["error"]["type"]) == ("error", "api_error")
    assert "not an OpenAI chat chunk" in error["error"]["message"]
    assert line.status == (200 if streamed else 502)


async def test_wrong_field_is_named_by_its_path():
    async with v1_server() as running:
        line = await running.ask(MESSAGES, user_says(messages=[{"role": "user"}]))
    assert line.status == 400
    assert line.json["error"]["message"] == "messages.0.content: is required"
    assert line.json["error"]["type"] == "invalid_request_error"


async def test_unknown_model_is_404_without_retry():
    async with v1_server() as running:
        line = await running.ask(MESSAGES, user_says(model="gpt-7"))
    assert (line.status, line.json["error"]["type"], line.headers["x-should-retry"]) == (
        404,
        "not_found_error",
        "false",
    )


async def test_full_queue_is_429_with_retry_after():
    async with v1_server(capacity=1) as running:
        others = await fill_queue(running)
        line = await running.ask(MESSAGES, user_says())
        for other in others:
            other.disconnect.set()
        await wait_for_free_slots(running.queen)
    assert (line.status, line.json["error"]["type"]) == (429, "rate_limit_error")
    assert line.json["error"]["details"] == {"error_code": "ADMISSION_REJECT"}
    assert int(line.headers["retry-after"]) * 1000 >= int(line.headers["retry-after-ms"]) > 0
    assert line.headers["x-should-retry"] == "true"


async def test_exhausted_replicas_are_529_with_retry():
    async with v1_server() as running:
        add_vanishing_replicas(running.queen)
        line = await running.ask(MESSAGES, user_says(model="p"))
        assert (line.status, line.json["error"]["type"]) == (529, "overloaded_error")
        assert line.json["error"]["details"] == {"error_code": "REPLICA_EXHAUSTED"}
        assert line.headers["x-should-retry"] == "true"
        await wait_for_free_slots(running.queen)


async def test_stopping_daemon_is_529():
    async with v1_server() as running:
        running.queen.intake.close()
        line = await running.ask(MESSAGES, user_says())
    assert (line.status, line.json["error"]["type"]) == (529, "overloaded_error")
    assert line.headers["retry-after"]


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
@pytest.mark.parametrize("streamed", [True, False])
async def test_client_disconnect_cancels_task(streamed: bool, path: str):
    async with v1_server() as running:
        line = running.start(path, user_says("silence", stream=streamed))
        with trio.fail_after(5):
            while not running.engine.connected:
                await trio.lowlevel.checkpoint()
        line.disconnect.set()
        with trio.fail_after(5):
            await line.finished.wait()
        await wait_for_free_slots(running.queen)
        (task,) = running.queen.book.newest_first()
    assert task.state == "cancelled"


async def test_waiting_stream_pings_after_message_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "KEEP_ALIVE_S", 0.001)
    async with v1_server() as running:
        running.queen.pool(models_available=["tiny"], slots=0)
        line = running.start(MESSAGES, user_says(stream=True))
        await line.wait_for(b"event: ping\n")
        running.queen.pool(models_available=["tiny"])
        with trio.fail_after(5):
            await line.finished.wait()
    assert names(line)[:2] == ["message_start", "ping"]
    others = [name for name in names(line) if name != "ping"]
    assert (others.count("message_start"), others[-1]) == (1, "message_stop")


async def test_tokens_are_counted_by_engine():
    async with v1_server() as running:
        line = await running.ask(COUNT, {key: value for key, value in user_says().items() if key != "max_tokens"})
        assert b'"max_tokens": 1' in running.engine.last_request
    assert (line.status, line.json) == (200, {"input_tokens": 6})


async def test_count_without_engine_support_is_501():
    async with v1_server() as running:
        running.engine.script = [delta(content="x"), delta("length")]
        line = await running.ask(COUNT, user_says())
    assert (line.status, line.json["error"]["type"]) == (501, "api_error")
    assert "does not report" in line.json["error"]["message"]


async def test_api_key_is_accepted_and_401_has_anthropic_format():
    async with v1_server() as running:
        running.gate = build_gate(running.queen, Access(Secret("0123456789abcdef")))
        none = await running.ask(MESSAGES, user_says())
        wrong = await running.ask(MESSAGES, user_says(), x_api_key="wrong")
        right = await running.ask(MESSAGES, user_says(), x_api_key="0123456789abcdef")
    assert [line.status for line in (none, wrong, right)] == [401, 401, 200]
    assert none.json["error"]["type"] == wrong.json["error"]["type"] == "authentication_error"
    assert "token" in none.json["error"]["message"]


async def test_unknown_paths_and_methods_have_anthropic_format():
    async with v1_server() as running:
        method = await running.ask(MESSAGES, method="GET")
        path = await running.ask("/v1/messages/batches", {})
    assert (method.status, method.json["error"]["type"]) == (405, "invalid_request_error")
    assert (path.status, path.json["error"]["type"]) == (404, "not_found_error")


def test_translation_is_not_imported_at_start():
    program = "import sys, queen_rbee.api.v1.anthropic; print(*(name for name in sys.modules if '.messages' in name))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=DAEMONS)
    assert loaded.stdout.split() == []


@given(st.text())
def test_frame_has_two_lines_for_any_text(text: str):
    frame = MessageEvent({"type": "content_block_delta", "delta": {"text": text}}).frame.decode()
    assert frame.split("\n")[2:] == ["", ""]
    assert json.loads(frame.split("\n")[1].removeprefix("data: "))["delta"]["text"] == text
