"""The adapter for llama-server and the relay, with a real llama-server: what the adapter's docstring states."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import JsonValue

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import TaskRequest, TaskState
from llama_orch.engines.wire.llamacpp import LlamaCpp
from llama_orch.engines.wire.passage import Endpoint, Passage
from llama_orch.http.client.client import UpstreamError, fetch_json
from queen_rbee.dispatch import relay
from queen_rbee.dispatch.failures import FailureKind, RelayFailure
from queen_rbee.dispatch.stalls import StallLimits
from queen_rbee.pools.candidates import Candidate
from queen_rbee.tasks.task import Task
from tests.engines.running import serving_engine

LONG = 100_000
HELLO: list[JsonValue] = [{"role": "user", "content": "hello there"}]


async def relay_to_end(task: Task, url: str) -> Task:
    """Relay `task` to its end. Raises RelayFailure."""
    target = Candidate("p", "r0", url, PoolState.READY, True, False, 1, 0, "llamacpp")
    task.start("p", "r0", trio.current_time())
    await relay.run(task, target, LlamaCpp(), StallLimits())
    assert task.state is TaskState.DONE
    return task


async def run_prompt(url: str, **request: Any) -> Task:
    return await relay_to_end(Task(TaskRequest(**{"prompt": "the river", **request}), "c", trio.current_time()), url)


async def run_passage(url: str, endpoint: Endpoint, **body: Any) -> Task:
    passage = Passage(endpoint, {"model": "mine", **body}, len(json.dumps(body)))
    return await relay_to_end(Task(TaskRequest(), "c", trio.current_time(), passage), url)


async def run_failing_prompt(url: str, **request: Any) -> RelayFailure:
    with pytest.raises(RelayFailure) as failure:
        await run_prompt(url, **request)
    return failure.value


def payloads(task: Task, event: str) -> list[Any]:
    return [json.loads(frame.payload) for frame in task.log.frames(0) if frame.event == event]


def text(task: Task) -> str:
    return "".join(token["t"] for token in payloads(task, "token"))


async def busy_slots(url: str) -> int:
    _status, slots = await fetch_json(f"{url}/slots", limit_s=10)
    return sum(slot["is_processing"] for slot in slots)


async def test_prompt_streams_tokens_with_engine_counts(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model, slots=1) as engine:
        first = await run_prompt(engine.url, max_tokens=5)
        assert len(payloads(first, "token")) == first.measurements.tokens_out == 5
        assert (first.measurements.tokens_in, first.measurements.tokens_cached) == (3, 0)
        again = await run_prompt(engine.url, max_tokens=5)
        assert again.measurements.tokens_in == 3
        assert again.measurements.tokens_cached
        cold = await run_prompt(engine.url, max_tokens=5, kv_hint="cold")
        assert (cold.measurements.tokens_in, cold.measurements.tokens_cached) == (3, 0)


async def test_strict_determinism_gives_same_text_despite_cache(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model, slots=1) as engine:
        texts = {text(await run_prompt(engine.url, max_tokens=20, seed=3, determinism="strict")) for _time in range(3)}
        assert len(texts) == 1
        other = await run_prompt(engine.url, max_tokens=20, seed=4, determinism="strict")
        assert (text(other) in texts, other.measurements.tokens_cached) == (False, 0)


async def test_stop_text_ends_answer_and_is_excluded(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model, slots=1) as engine:
        whole = text(await run_prompt(engine.url, max_tokens=20, temperature=0.0))
        stop = whole[5:9]
        assert (
            text(await run_prompt(engine.url, max_tokens=20, temperature=0.0, stop=[stop])) == whole.partition(stop)[0]
        )


async def test_chat_streams_openai_chunks_and_separate_usage(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model) as engine:
        task = await run_passage(engine.url, "chat", messages=HELLO, max_tokens=4, stream=False)
        chunks = payloads(task, "chunk")
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert [bool(chunk["choices"][0]["delta"].get("content")) for chunk in chunks].count(True) == 4
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        (counted,) = payloads(task, "usage")
        assert counted["choices"] == []
        assert counted["usage"]["prompt_tokens"] == task.measurements.tokens_in > 0
        assert (counted["usage"]["completion_tokens"], task.measurements.tokens_out) == (4, 4)
        assert task.measurements.tokens_cached == counted["usage"]["prompt_tokens_details"]["cached_tokens"]


async def test_multiple_choices_and_completions_are_passed_on(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model) as engine:
        two = await run_passage(engine.url, "chat", messages=HELLO, max_tokens=2, n=2)
        assert {chunk["choices"][0]["index"] for chunk in payloads(two, "chunk")} == {0, 1}
        (counted,) = payloads(two, "usage")
        assert counted["usage"]["completion_tokens"] == two.measurements.tokens_out == 4
        assert counted["usage"]["prompt_tokens"] == two.measurements.tokens_in
        plain = await run_passage(engine.url, "completions", prompt=["the river", "hello"], max_tokens=3, stream=True)
        assert (plain.measurements.tokens_in, plain.measurements.tokens_out) == (5, 6)
        plain = await run_passage(engine.url, "completions", prompt="the river", max_tokens=3)
        assert [bool(chunk["choices"][0]["text"]) for chunk in payloads(plain, "chunk")].count(True) == 3
        assert (plain.measurements.tokens_in, plain.measurements.tokens_out) == (3, 3)


async def test_embeddings_arrive_as_one_result(llama_server: Path, tiny_model: Path) -> None:
    flags = ("--embeddings", "--pooling", "mean")
    async with serving_engine(llama_server, tiny_model, flags=flags) as engine:
        task = await run_passage(engine.url, "embeddings", input=["a", "b"])
        (result,) = payloads(task, "result")
        assert [len(item["embedding"]) for item in result["data"]] == [64, 64]
        assert task.measurements.tokens_in == result["usage"]["prompt_tokens"] > 0


async def test_input_beyond_batch_is_client_error(llama_server: Path, tiny_model: Path) -> None:
    """The default batch has 512 tokens. A batch as large as the context accepts any input that fits into it."""
    pooled = ("--embeddings", "--pooling", "mean")
    async with serving_engine(llama_server, tiny_model, ctx=2048, flags=pooled) as engine:
        with pytest.raises(RelayFailure, match="is too large to process") as failure:
            await run_passage(engine.url, "embeddings", input="word " * 450)
        refused = failure.value
        assert (refused.code, refused.blame) == (ErrorCode.INVALID_PARAMS, "nobody")
        assert refused.reason == "context_length_exceeded"
    async with serving_engine(
        llama_server, tiny_model, ctx=2048, flags=(*pooled, "-b", "2048", "-ub", "2048")
    ) as engine:
        assert (await run_passage(engine.url, "embeddings", input="word " * 450)).measurements.tokens_in > 512


async def test_documents_are_ranked(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model, flags=("--reranking",)) as engine:
        task = await run_passage(engine.url, "rerank", query="a", documents=["b", "c"])
        (result,) = payloads(task, "result")
        assert {item["index"] for item in result["results"]} == {0, 1}
        assert task.measurements.tokens_in == result["usage"]["prompt_tokens"] > 0


async def test_engine_message_is_returned_for_invalid_requests(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model) as engine:
        too_long = await run_failing_prompt(engine.url, prompt="the river " * 600)
        assert (too_long.code, too_long.blame) == (ErrorCode.INVALID_PARAMS, "nobody")
        assert "exceeds the available context size" in str(too_long)
        with pytest.raises(RelayFailure, match="Start it with `--embeddings`") as not_served:
            await run_passage(engine.url, "embeddings", input="a")
        assert (not_served.value.code, not_served.value.retriable) == (ErrorCode.INVALID_PARAMS, False)
        with pytest.raises(RelayFailure, match="Expected 'messages' to be an array"):
            await run_passage(engine.url, "chat", messages="hello")
        assert (await run_prompt(engine.url, max_tokens=1)).measurements.tokens_out == 1


@contextmanager
def loading_engine(llama_server: Path, directory: Path) -> Iterator[str]:
    """Run a llama-server that never finishes loading, because its model is a FIFO without a writer. Yield its URL."""
    os.mkfifo(directory / "model.gguf")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    serve = [str(llama_server), "-m", str(directory / "model.gguf"), "--port", port]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *serve], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def test_task_for_loading_engine_may_go_elsewhere(llama_server: Path, tmp_path: Path) -> None:
    with loading_engine(llama_server, tmp_path) as url:
        with trio.fail_after(30):
            while "is unreachable" in str(loading := await run_failing_prompt(url)):  # noqa: ASYNC110 -- state of another process
                await trio.sleep(0.02)
        assert str(loading) == "Loading model"
        assert (loading.code, loading.kind) == (ErrorCode.WORKER_RESET, FailureKind.UNAVAILABLE)


async def wait_for_tokens(task: Task, least: int) -> None:
    """Wait until the task has at least `least` tokens."""
    with trio.fail_after(20):
        while task.measurements.tokens_out < least:
            await task.log.wait_beyond(task.log.last_id)


@pytest.mark.parametrize("endpoint", ["completion", "chat"])
async def test_cancelling_task_frees_engine_slot(llama_server: Path, slow_model: Path, endpoint: Endpoint) -> None:
    passage = Passage("chat", {"messages": HELLO, "max_tokens": LONG}, 100) if endpoint == "chat" else None
    async with serving_engine(llama_server, slow_model, ctx=2048) as engine:
        task = Task(TaskRequest(prompt="the river", max_tokens=LONG), "c", trio.current_time(), passage)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay_to_end, task, engine.url)
            await wait_for_tokens(task, 3)
            assert await busy_slots(engine.url) == 1
            nursery.cancel_scope.cancel()
        with trio.fail_after(20):
            while await busy_slots(engine.url):  # noqa: ASYNC110 -- state of another process
                await trio.sleep(0.01)


async def test_engine_killed_midway_fails_task_as_retriable(llama_server: Path, slow_model: Path) -> None:
    async with serving_engine(llama_server, slow_model, ctx=2048) as engine:
        task = Task(TaskRequest(prompt="the river", max_tokens=LONG), "c", trio.current_time())
        failures: list[RelayFailure] = []

        async def relayed() -> None:
            with pytest.raises(RelayFailure) as failure:
                await relay_to_end(task, engine.url)
            failures.append(failure.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(relayed)
            await wait_for_tokens(task, 3)
            engine.process.kill()
        (broken,) = failures
        assert (broken.code, broken.retriable, broken.next_step == "elsewhere") == (ErrorCode.WORKER_RESET, True, False)
        with pytest.raises(UpstreamError):
            await busy_slots(engine.url)
        gone = await run_failing_prompt(engine.url)
        assert (gone.code, gone.kind) == (ErrorCode.WORKER_RESET, FailureKind.UNAVAILABLE)
