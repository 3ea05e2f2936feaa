"""/v1 serves OpenAI's clients, in their error format, through the queue of all tasks."""

import gzip
import json
from collections.abc import Callable

import pytest
import trio
from pydantic import JsonValue

from llama_orch.contracts.catalog import ModelState, NewModel
from llama_orch.contracts.pools import PoolState
from llama_orch.settings.api import BODY_LIMIT
from tests.unit.queen_rbee.queen_core import add_vanishing_replicas, wait_for_free_slots
from tests.unit.queen_rbee.scripted_openai import CHAT as CHUNKS
from tests.unit.queen_rbee.scripted_openai import CHAT_WITHOUT_USAGE, EMBEDDING, USAGE, delta
from tests.unit.queen_rbee.v1_client import CHAT, V1Exchange, V1Server, chat_body, v1_server


async def until_queued(v1_server: V1Server, count: int = 1) -> None:
    """Return once `count` tasks are queued."""
    with trio.fail_after(5):
        while len(v1_server.queen.queue) < count:
            await trio.lowlevel.checkpoint()


async def test_chat_is_answered_in_one_document():
    async with v1_server() as running:
        answer = await running.ask(body=chat_body())
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json["object"] == "chat.completion"
        assert answer.json["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}
        assert answer.json["usage"] == USAGE
        await wait_for_free_slots(running.queen)


async def test_stream_has_engine_chunks_and_done():
    async with v1_server() as running:
        answer = await running.ask(body=chat_body(stream=True))
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.chunks == [*CHAT_WITHOUT_USAGE, "[DONE]"]
        assert b"event:" not in answer.body
        assert b"id:" not in answer.body


async def test_usage_chunk_is_streamed_on_request():
    async with v1_server() as running:
        answer = await running.ask(body=chat_body(stream=True, stream_options={"include_usage": True}))
        assert answer.chunks == [*CHUNKS, "[DONE]"]


@pytest.mark.parametrize("options", [None, {"include_usage": True}])
async def test_stream_is_counted_whether_usage_was_requested_or_not(options: dict[str, JsonValue] | None):
    async with v1_server() as running:
        await running.ask(body=chat_body(stream=True, stream_options=options))
        task = next(running.queen.book.newest_first())
        assert (task.measurements.tokens_in, task.measurements.tokens_out, task.measurements.tokens_cached) == (6, 2, 5)


async def test_engine_gets_request_unchanged_with_stream_on():
    async with v1_server() as running:
        asked = chat_body(tools=[{"type": "function", "function": {"name": "f"}}], logit_bias={"5": -1}, temperature=0)
        await running.ask(body=asked)
        assert running.engine.body == {**asked, "stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["hello"], "encoding_format": "base64"}),
        ("/v1/rerank", {"query": "hello", "documents": ["world"]}),
    ],
)
async def test_document_answers_pass_unchanged(path: str, body: dict[str, object]):
    async with v1_server() as running:
        answer = await running.ask(path, body)
        assert (answer.status, answer.json) == (200, EMBEDDING)
        assert running.engine.body == body


@pytest.mark.parametrize("stream", [False, True])
async def test_answer_has_pool_overhead_and_correlation_headers(stream: bool):
    async with v1_server() as running:
        answer = await running.ask(body=chat_body(stream=stream), x_correlation_id="find-me")
        assert answer.headers["x-llama-orch-pool"] == "p"
        assert answer.headers["x-queue-position"] == "0"
        assert float(answer.headers["x-llama-orch-overhead-ms"]) >= 0
        assert answer.headers["x-correlation-id"] == answer.headers["x-request-id"] == "find-me"
        assert b"x-correlation-id: find-me" in running.engine.last_request


async def test_own_headers_reach_the_task():
    async with v1_server() as running:
        session = "6f9619ff-8b86-d011-b42d-00c04fc964ff"
        await running.ask(body=chat_body(), x_session_id=session, x_priority="batch", x_deadline_ms="60000")
        task = next(running.queen.book.newest_first())
        assert (str(task.request.session_id), task.request.priority) == (session, "batch")
        assert task.request.deadline_ms == 60000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("words", "status", "kind", "retry"),
    [
        ("refuse", 400, "invalid_request_error", "false"),
        ("break", 502, "server_error", "true"),
        ("nothing", 502, "server_error", "true"),
        ("silence", 504, "server_error", "true"),
    ],
)
async def test_early_failure_is_http_status(words: str, status: int, kind: str, retry: str, stream: bool):
    async with v1_server(short_limits=words == "silence") as running:
        answer = await running.ask(body=chat_body(words, stream=stream))
        assert (answer.status, answer.error["type"]) == (status, kind)
        assert set(answer.error) == {"message", "type", "param", "code"}
        assert answer.headers["x-should-retry"] == retry
        await wait_for_free_slots(running.queen)


@pytest.mark.parametrize("stream", [False, True])
async def test_exhausted_replicas_are_503_with_retry(stream: bool):
    async with v1_server() as running:
        add_vanishing_replicas(running.queen)
        answer = await running.ask(body=chat_body(stream=stream))
        assert (answer.status, answer.error["type"]) == (503, "server_error")
        assert (answer.error["code"], answer.headers["x-should-retry"]) == ("REPLICA_EXHAUSTED", "true")
        await wait_for_free_slots(running.queen)


@pytest.mark.parametrize("stream", [False, True])
async def test_engine_error_reason_reaches_client(stream: bool):
    async with v1_server() as running:
        error = (await running.ask(body=chat_body("refuse", stream=stream))).error
        assert (error["message"], error["code"]) == ("request exceeds the context", "context_length_exceeded")
        assert error["param"] == "messages"


async def test_max_tokens_beyond_context_is_not_refused():
    async with v1_server() as running:
        running.queen.pool(ctx_max=512)
        for limit in ("max_tokens", "max_completion_tokens"):
            assert (await running.ask(body={**chat_body(), limit: 8192})).status == 200
        answer = await running.ask(body=chat_body(max_tokens=513, model="gpt"))
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [[{"choices": "x"}], [delta(content="a"), {"choices": [5]}], [[]], ["x"]])
async def test_malformed_engine_answer_fails_only_its_task(script: list[object], stream: bool):
    async with v1_server() as running:
        running.engine.script = script
        answer = await running.ask(body=chat_body(stream=stream))
        error = answer.chunks[-1]["error"] if stream and answer.status == 200 else answer.error
        assert (error["code"], error["type"]) == ("WORKER_RESET", "server_error")
        assert "cannot be parsed" in error["message"]
        running.engine.script = CHUNKS
        assert (await running.ask(body=chat_body())).status == 200
        await wait_for_free_slots(running.queen)


async def test_impossible_counts_are_ignored():
    async with v1_server() as running:
        counted = {**CHUNKS[-1], "usage": {"prompt_tokens": 10**400, "completion_tokens": -1}}
        running.engine.script = [*CHUNKS[:-1], counted]
        await running.ask(body=chat_body(stream=True, stream_options={"include_usage": True}))
        task = next(running.queen.book.newest_first())
        assert (task.measurements.tokens_in, task.measurements.tokens_out) == (0, 2)
        assert (await running.ask(body=chat_body())).status == 200


@pytest.mark.parametrize(("words", "code"), [("midway", "WORKER_RESET"), ("stall", "DECODE_TIMEOUT")])
async def test_late_failure_is_last_chunk(words: str, code: str):
    async with v1_server(short_limits=words == "stall") as running:
        answer = await running.ask(body=chat_body(words, stream=True))
        assert answer.status == 200
        assert answer.chunks[:-1] == [*CHUNKS[:2]]
        assert answer.chunks[-1]["error"]["code"] == code
        await wait_for_free_slots(running.queen)


@pytest.mark.parametrize("words", ["midway", "stall"])
async def test_broken_answer_without_stream_is_an_error(words: str):
    async with v1_server(short_limits=words == "stall") as running:
        assert (await running.ask(body=chat_body(words))).status in (502, 504)


async def test_wrong_field_is_param_of_error():
    async with v1_server() as running:
        answer = await running.ask(body={"messages": [{"role": "user"}, {}]})
        assert (answer.status, answer.error["param"]) == (400, "messages[1].role")
        assert "is required" in answer.error["message"]


async def test_deeply_nested_body_reaches_engine():
    async with v1_server() as running:
        nested = "deep"
        for _ in range(190):
            nested = [nested]  # type: ignore[assignment]
        assert (await running.ask(body=chat_body(metadata=nested))).status == 200
        assert running.engine.body["metadata"] == nested


async def test_too_long_body_is_413():
    async with v1_server() as running:
        answer = await running.ask(body=b'"' + b"A" * BODY_LIMIT)
        assert (answer.status, answer.error["type"]) == (413, "invalid_request_error")
        assert "LLORCH_BODY_LIMIT" in answer.error["message"]


@pytest.mark.parametrize("name", ["p", "tiny", "hf:org/repo/tiny.gguf", "default", None])
async def test_model_is_found_by_each_of_its_names(name: str | None):
    async with v1_server() as running:
        assert (await running.ask(body=chat_body(model=name))).status == 200


async def test_unknown_model_is_model_not_found():
    async with v1_server() as running:
        answer = await running.ask(body=chat_body(model="gpt-9"))
        assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
        assert "hf:org/repo/tiny.gguf" in answer.error["message"]


async def test_retired_model_is_model_not_found():
    async with v1_server() as running:
        catalog = running.queen.catalog
        model, _new = await catalog.add(NewModel(id="old", model_ref="tiny"))
        await catalog.set_state(model, ModelState.RETIRED)
        answer = await running.ask(body=chat_body(model="old"))
        assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
        assert "retired" in answer.error["message"]


async def test_full_queue_is_429_with_retry_after():
    async with v1_server(capacity=1) as running:
        running.queen.pool(ready=False)
        running.start(body=chat_body())
        await until_queued(running)
        answer = await running.ask(body=chat_body("another"))
        assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
        assert int(answer.headers["retry-after"]) >= 1
        assert int(answer.headers["retry-after-ms"]) >= 1
        assert answer.headers["x-should-retry"] == "true"


async def test_evicted_task_is_429_with_retry_after():
    async with v1_server(capacity=1, policy="drop-lru") as running:
        running.queen.pool(ready=False)
        dropped = running.start(body=chat_body())
        await until_queued(running)
        running.start(body=chat_body("another"))
        with trio.fail_after(5):
            await dropped.finished.wait()
        assert (dropped.status, dropped.error["code"]) == (429, "QUEUE_FULL_DROP_LRU")
        assert int(dropped.headers["retry-after"]) >= 1


async def test_failed_pool_is_503():
    async with v1_server() as running:
        running.queen.pool(state=PoolState.FAILED, ready=False)
        answer = await running.ask(body=chat_body())
        assert (answer.status, answer.error["code"]) == (503, "POOL_UNREADY")
        assert "retry-after" in answer.headers


async def test_cancel_by_another_client_is_409():
    async with v1_server() as running:
        running.queen.pool(ready=False)
        line = running.start(body=chat_body())
        await until_queued(running)
        queen = running.queen
        queen.dispatcher.cancel(next(queen.book.newest_first()))
        with trio.fail_after(5):
            await line.finished.wait()
        assert (line.status, line.error["code"], line.headers["x-should-retry"]) == (409, "CANCELLED", "false")


async def test_internal_error_has_openai_format(monkeypatch: pytest.MonkeyPatch):
    async with v1_server() as running:
        monkeypatch.setattr(running.queen.catalog, "model", None)
        answer = await running.ask(body=chat_body(model="tiny"))
        assert (answer.status, answer.error["code"]) == (500, "INTERNAL")


async def get_models(running: V1Server, name: str = "") -> V1Exchange:
    return await running.ask(f"/v1/models{name}", method="GET")


async def test_models_are_listed_under_every_name():
    async with v1_server() as running:
        answer = await get_models(running)
        assert answer.json["object"] == "list"
        assert [entry["id"] for entry in answer.json["data"]] == ["p", "hf:org/repo/tiny.gguf"]
        for entry in answer.json["data"]:
            assert (entry["object"], entry["owned_by"], entry["ready"]) == ("model", "llama-orch", True)
            assert isinstance(entry["created"], int)
            assert (await get_models(running, f"/{entry['id']}")).json == entry
        assert (await get_models(running, "/gpt-9")).error["code"] == "model_not_found"


@pytest.mark.parametrize(("path", "method", "status"), [("/v1/nowhere", "POST", 404), (CHAT, "GET", 405)])
async def test_unknown_paths_and_methods_have_openai_format(path: str, method: str, status: int):
    async with v1_server() as running:
        answer = await running.ask(path, method=method)
        assert (answer.status, answer.error["type"]) == (status, "invalid_request_error")


async def test_all_choices_are_returned():
    async with v1_server() as running:
        running.engine.script = (
            delta(index=1, content="b"),
            delta(index=0, content="a"),
            delta("stop", 0),
            delta("stop", 1),
        )
        answer = await running.ask(body=chat_body(n=2))
        assert [choice["message"]["content"] for choice in answer.json["choices"]] == ["a", "b"]


@pytest.mark.parametrize("encode", [gzip.compress, lambda body: gzip.compress(b"\xef\xbb\xbf" + body)])
async def test_gzip_body_is_accepted(encode: Callable[[bytes], bytes]):
    async with v1_server() as running:
        answer = await running.ask(body=encode(json.dumps(chat_body()).encode()), content_encoding="gzip")
        assert answer.status == 200
        assert running.engine.body["messages"] == chat_body()["messages"]


async def test_other_content_encoding_is_415():
    async with v1_server() as running:
        answer = await running.ask(body=b"{}", content_encoding="br")
        assert (answer.status, answer.error["type"]) == (415, "invalid_request_error")
        assert answer.headers["accept-encoding"] == "gzip"
