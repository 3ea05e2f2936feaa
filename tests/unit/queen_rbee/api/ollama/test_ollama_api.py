"""/api over a scripted engine: lines, errors in Ollama's format, loads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from llama_orch.http.server.access import Access
from llama_orch.settings.types import Secret
from queen_rbee.api import ollama
from queen_rbee.api.v1 import answers
from tests.unit.queen_rbee.messages_examples import WEATHER, call
from tests.unit.queen_rbee.queen_core import wait_for_free_slots
from tests.unit.queen_rbee.scripted_openai import USAGE_CHUNK, delta
from tests.unit.queen_rbee.v1_client import V1Exchange, build_gate, v1_server

CHAT = "/api/chat"
GENERATE = "/api/generate"
LATE = {f"queen_rbee.api.ollama.{path.stem}" for path in Path(ollama.__file__).parent.glob("*.py")} - {
    f"queen_rbee.api.ollama.{name}"
    for name in (
        "__init__",
        "connected",
        "declared",
        "descriptions",
        "disk_routes",
        "loads",
        "model_routes",
        "names",
        "routes",
    )
}
DAEMONS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
TOOL = {"type": "function", "function": {"name": WEATHER["name"], "parameters": WEATHER["input_schema"]}}


def user_says(words: str = "hello", **fields: object) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": words}], **fields}


def lines(found: V1Exchange) -> list[dict[str, Any]]:
    return [json.loads(line) for line in found.body.decode().splitlines()]


async def test_stream_is_the_default_and_has_a_line_a_piece():
    async with v1_server() as running:
        found = await running.ask(CHAT, user_says(), x_correlation_id="mine")
    assert found.headers["content-type"] == "application/x-ndjson"
    assert (found.headers["x-correlation-id"], found.headers["x-llama-orch-pool"]) == ("mine", "p")
    assert [line["message"]["content"] for line in lines(found)] == ["Hel", "lo", ""]
    assert [line["done"] for line in lines(found)] == [False, False, True]
    end = lines(found)[-1]
    assert (end["model"], end["done_reason"], end["prompt_eval_count"], end["eval_count"]) == ("tiny", "stop", 6, 2)


async def test_whole_answer_is_one_object():
    async with v1_server() as running:
        chat = await running.ask(CHAT, user_says(stream=False))
        generated = await running.ask(GENERATE, {"model": "tiny:latest", "prompt": "hello", "stream": False})
    assert chat.headers["content-type"] == "application/json"
    assert chat.json["message"] == {"role": "assistant", "content": "Hello"}
    assert (generated.json["model"], generated.json["response"], generated.json["done"]) == (
        "tiny:latest",
        "Hello",
        True,
    )
    assert generated.json["total_duration"] > 0


async def test_engine_is_asked_by_openai_api():
    async with v1_server() as running:
        await running.ask(CHAT, user_says(options={"num_predict": 5, "num_ctx": 99}, keep_alive="5m", think=False))
        asked = running.engine.last_request
    assert b"POST /v1/chat/completions" in asked
    assert b'"max_tokens": 5' in asked
    for absent in (b"num_predict", b"num_ctx", b"keep_alive", b'"options"'):
        assert absent not in asked


async def test_tool_calls_are_whole():
    script = [
        delta(**call(0, id="c1", name="get_weather")),
        delta(**call(0, '{"place": "Bern"}')),
        delta("tool_calls"),
        USAGE_CHUNK,
    ]
    expected = [{"id": "c1", "function": {"index": 0, "name": "get_weather", "arguments": {"place": "Bern"}}}]
    async with v1_server() as running:
        running.engine.script = script
        whole = await running.ask(CHAT, user_says(tools=[TOOL], stream=False))
        stream = await running.ask(CHAT, user_says(tools=[TOOL]))
    assert whole.json["message"] == {"role": "assistant", "content": "", "tool_calls": expected}
    assert [line["message"].get("tool_calls") for line in lines(stream)] == [expected, None]


async def test_silence_is_bridged_by_space(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "KEEP_ALIVE_S", 0.01)
    async with v1_server() as running:
        found = running.start(CHAT, user_says("silence"))
        await found.wait_for(b"  ")
        found.disconnect.set()
        await found.finished.wait()
        await wait_for_free_slots(running.queen)
    assert found.body.strip() == b""


async def test_failure_before_and_within_the_stream():
    async with v1_server() as running:
        before = await running.ask(CHAT, user_says("refuse"))
        midway = await running.ask(CHAT, user_says("midway"))
    assert before.status == 400
    assert "exceeds the context" in before.json["error"]
    *_pieces, last = lines(midway)
    assert midway.status == 200
    assert set(last) == {"error"}
    assert "out of memory" in last["error"]


async def test_unreadable_answer_is_an_error():
    async with v1_server() as running:
        running.engine.script = [{"choices": [{"delta": {"content": 3}}]}, delta("stop"), USAGE_CHUNK]
        whole = await running.ask(CHAT, user_says(stream=False))
        stream = await running.ask(CHAT, user_says())
    assert (whole.status, list(whole.json)) == (502, ["error"])
    assert "not in OpenAI's format" in lines(stream)[-1]["error"]


async def test_unknown_model_has_ollamas_words():
    async with v1_server() as running:
        for name in ("gone", "gone:latest"):
            found = await running.ask(CHAT, user_says() | {"model": name})
            assert found.status == 404
            assert found.json["error"].startswith('model "gone" not found. Available: p, ')


async def test_paths_methods_and_tokens_have_ollamas_errors():
    async with v1_server() as running:
        path = await running.ask("/api/create", {})
        method = await running.ask(CHAT, method="PUT")
        running.gate = build_gate(running.queen, Access(Secret("0123456789abcdef")))
        token = await running.ask(CHAT, user_says())
        right = await running.ask(CHAT, user_says(), authorization="Bearer 0123456789abcdef")
    assert [found.status for found in (path, method, token, right)] == [404, 405, 401, 200]
    assert all(isinstance(found.json["error"], str) for found in (path, method, token))


async def test_empty_request_loads_or_unloads():
    async with v1_server() as running:
        running.loads.loadable.set()
        chat = await running.ask(CHAT, {"model": "tiny", "messages": [], "keep_alive": "1h"})
        generated = await running.ask(GENERATE, {"model": "tiny", "keep_alive": 0})
        embedded = await running.ask("/api/embed", {"model": "tiny", "input": ""})
        assert running.engine.connected == 0
    assert running.loads.asked == [("load", "tiny", 3600), ("unload", "tiny", None), ("load", "tiny", None)]
    assert (chat.json["done_reason"], chat.json["message"]["content"]) == ("load", "")
    assert (generated.json["done_reason"], generated.json["response"]) == ("unload", "")
    assert embedded.json == {"model": "tiny", "embeddings": []}


async def test_load_with_invalid_header_is_refused():
    async with v1_server() as running:
        found = await running.ask(GENERATE, {"model": "tiny"}, x_deadline_ms="soon")
    assert (found.status, running.loads.asked) == (400, [])
    assert "X-Deadline-Ms" in found.json["error"]


async def test_client_that_leaves_no_longer_waits_for_load():
    async with v1_server() as running:
        found = running.start(CHAT, {"model": "tiny"})
        while not running.loads.asked:
            await trio.lowlevel.checkpoint()
        found.disconnect.set()
        with trio.fail_after(5):
            await running.loads.cancelled.wait()
            await found.finished.wait()


async def test_embeddings_have_both_shapes():
    async with v1_server() as running:
        several = await running.ask("/api/embed", {"model": "tiny", "input": ["a"], "truncate": True})
        one = await running.ask("/api/embeddings", {"model": "tiny", "prompt": "a"})
    assert several.json["embeddings"] == [[0.25, -0.5]]
    assert several.json["prompt_eval_count"] == 2
    assert one.json == {"embedding": [0.25, -0.5]}


def test_translation_is_not_imported_at_start():
    program = f"import sys, queen_rbee.api.routes; print(*({LATE} & {{name for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=DAEMONS)
    assert loaded.stdout.split() == []
