"""The adapter for llama-server, the relay and a real llama-server: what the adapter's docstring claims is so."""

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


async def run(task: Task, url: str) -> Task:
    """Relay `task` to its end. Raises RelayFailure."""
    target = Candidate("p", "r0", url, PoolState.READY, True, False, 1, 0, "llamacpp")
    task.start("p", "r0", trio.current_time())
    await relay.run(task, target, LlamaCpp(), StallLimits())
    assert task.state is TaskState.DONE
    return task


async def prompted(url: str, **request: Any) -> Task:
    return await run(Task(TaskRequest(**{"prompt": "the river", **request}), "c", trio.current_time()), url)


async def passed_on(url: str, endpoint: Endpoint, **body: Any) -> Task:
    passage = Passage(endpoint, {"model": "mine", **body}, len(json.dumps(body)))
    return await run(Task(TaskRequest(), "c", trio.current_time(), passage), url)


async def failed(url: str, **request: Any) -> RelayFailure:
    with pytest.raises(RelayFailure) as failure:
        await prompted(url, **request)
    return failure.value


def payloads(task: Task, event: str) -> list[Any]:
    return [json.loads(frame.payload) for frame in task.log.frames(0) if frame.event == event]


def text(task: Task) -> str:
    return "".join(token["t"] for token in payloads(task, "token"))


async def busy_slots(url: str) -> int:
    _status, slots = await fetch_json(f"{url}/slots", limit_s=10)
    return sum(slot["is_processing"] for slot in slots)


async def test_a_prompt_comes_piece_by_piece_with_the_engines_own_counts(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model, slots=1) as engine:
        first = await prompted(engine.url, max_tokens=5)
        assert len(payloads(first, "token")) == first.measurements.tokens_out == 5
        assert (first.measurements.tokens_in, first.measurements.tokens_cached) == (3, 0)
        again = await prompted(engine.url, max_tokens=5)
        assert again.measurements.tokens_in == 3
        assert again.measurements.tokens_cached
        cold = await prompted(engine.url, max_tokens=5, kv_hint="cold")
        assert (cold.measurements.tokens_in, cold.measurements.tokens_cached) == (3, 0)


async def test_a_seed_and_strict_determinism_give_the_same_text_whatever_is_cached(
    llama_server: Path, tiny_model: Path
) -> None:
    async with serving_engine(llama_server, tiny_model, slots=1) as engine:
        texts = {text(await prompted(engine.url, max_tokens=20, seed=3, determinism="strict")) for _time in range(3)}
        assert len(texts) == 1
        other = await prompted(engine.url, max_tokens=20, seed=4, determinism="strict")
        assert (text(other) in texts, other.measurements.tokens_cached) == (False, 0)


async def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model, slots=1) as engine:
        whole = text(await prompted(engine.url, max_tokens=20, temperature=0.0))
        stop = whole[5:9]
        assert text(await prompted(engine.url, max_tokens=20, temperature=0.0, stop=[stop])) == whole.partition(stop)[0]


async def test_a_chat_comes_in_openais_chunks_with_its_counts_apart(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model) as engine:
        task = await passed_on(engine.url, "chat", messages=HELLO, max_tokens=4, stream=False)
        chunks = payloads(task, "chunk")
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert [bool(chunk["choices"][0]["delta"].get("content")) for chunk in chunks].count(True) == 4
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        (counted,) = payloads(task, "usage")
        assert counted["choices"] == []
        assert counted["usage"]["prompt_tokens"] == task.measurements.tokens_in > 0
        assert (counted["usage"]["completion_tokens"], task.measurements.tokens_out) == (4, 4)
        assert task.measurements.tokens_cached == counted["usage"]["prompt_tokens_details"]["cached_tokens"]


async def test_several_choices_and_text_completions_are_passed_on_too(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model) as engine:
        two = await passed_on(engine.url, "chat", messages=HELLO, max_tokens=2, n=2)
        assert {chunk["choices"][0]["index"] for chunk in payloads(two, "chunk")} == {0, 1}
        (counted,) = payloads(two, "usage")
        assert counted["usage"]["completion_tokens"] == two.measurements.tokens_out == 4
        assert counted["usage"]["prompt_tokens"] == two.measurements.tokens_in
        plain = await passed_on(engine.url, "completions", prompt=["the river", "hello"], max_tokens=3, stream=True)
        assert (plain.measurements.tokens_in, plain.measurements.tokens_out) == (5, 6)
        plain = await passed_on(engine.url, "completions", prompt="the river", max_tokens=3)
        assert [bool(chunk["choices"][0]["text"]) for chunk in payloads(plain, "chunk")].count(True) == 3
        assert (plain.measurements.tokens_in, plain.measurements.tokens_out) == (3, 3)


async def test_embeddings_come_whole(llama_server: Path, tiny_model: Path) -> None:
    flags = ("--embeddings", "--pooling", "mean")
    async with serving_engine(llama_server, tiny_model, flags=flags) as engine:
        task = await passed_on(engine.url, "embeddings", input=["a", "b"])
        (result,) = payloads(task, "result")
        assert [len(item["embedding"]) for item in result["data"]] == [64, 64]
        assert task.measurements.tokens_in == result["usage"]["prompt_tokens"] > 0


async def test_input_beyond_the_batch_is_the_clients_fault(llama_server: Path, tiny_model: Path) -> None:
    """By default, that is with a batch of 512 tokens; as large as the context, it takes what fits into that."""
    pooled = ("--embeddings", "--pooling", "mean")
    async with serving_engine(llama_server, tiny_model, ctx=2048, flags=pooled) as engine:
        with pytest.raises(RelayFailure, match="is too large to process") as failure:
            await passed_on(engine.url, "embeddings", input="word " * 450)
        refused = failure.value
        assert (refused.code, refused.blame) == (ErrorCode.INVALID_PARAMS, "nobody")
        assert refused.reason == "context_length_exceeded"
    async with serving_engine(
        llama_server, tiny_model, ctx=2048, flags=(*pooled, "-b", "2048", "-ub", "2048")
    ) as engine:
        assert (await passed_on(engine.url, "embeddings", input="word " * 450)).measurements.tokens_in > 512


async def test_documents_are_ranked(llama_server: Path, tiny_model: Path) -> None:
    async with serving_engine(llama_server, tiny_model, flags=("--reranking",)) as engine:
        task = await passed_on(engine.url, "rerank", query="a", documents=["b", "c"])
        (result,) = payloads(task, "result")
        assert {item["index"] for item in result["results"]} == {0, 1}
        assert task.measurements.tokens_in == result["usage"]["prompt_tokens"] > 0


async def test_a_wrong_request_is_refused_in_the_engines_words_and_the_engine_is_well(
    llama_server: Path, tiny_model: Path
) -> None:
    async with serving_engine(llama_server, tiny_model) as engine:
        too_long = await failed(engine.url, prompt="the river " * 600)
        assert (too_long.code, too_long.blame) == (ErrorCode.INVALID_PARAMS, "nobody")
        assert "exceeds the available context size" in str(too_long)
        with pytest.raises(RelayFailure, match="Start it with `--embeddings`") as not_served:
            await passed_on(engine.url, "embeddings", input="a")
        assert (not_served.value.code, not_served.value.retriable) == (ErrorCode.INVALID_PARAMS, False)
        with pytest.raises(RelayFailure, match="Expected 'messages' to be an array"):
            await passed_on(engine.url, "chat", messages="hello")
        assert (await prompted(engine.url, max_tokens=1)).measurements.tokens_out == 1


@contextmanager
def loading_engine(llama_server: Path, directory: Path) -> Iterator[str]:
    """The url of a llama-server that loads for ever: its model is a pipe that nobody writes to."""
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


async def test_an_engine_that_loads_has_no_room_yet_and_the_task_may_go_elsewhere(
    llama_server: Path, tmp_path: Path
) -> None:
    with loading_engine(llama_server, tmp_path) as url:
        with trio.fail_after(30):
            while "is unreachable" in str(loading := await failed(url)):  # noqa: ASYNC110 -- another process's doing
                await trio.sleep(0.02)
        assert str(loading) == "Loading model"
        assert (loading.code, loading.kind) == (ErrorCode.WORKER_RESET, FailureKind.UNAVAILABLE)


async def tokens(task: Task, least: int) -> None:
    """Return when so many have come."""
    with trio.fail_after(20):
        while task.measurements.tokens_out < least:
            await task.log.wait_beyond(task.log.last_id)


@pytest.mark.parametrize("endpoint", ["completion", "chat"])
async def test_leaving_a_task_frees_the_engines_slot(llama_server: Path, slow_model: Path, endpoint: Endpoint) -> None:
    passage = Passage("chat", {"messages": HELLO, "max_tokens": LONG}, 100) if endpoint == "chat" else None
    async with serving_engine(llama_server, slow_model, ctx=2048) as engine:
        task = Task(TaskRequest(prompt="the river", max_tokens=LONG), "c", trio.current_time(), passage)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, task, engine.url)
            await tokens(task, 3)
            assert await busy_slots(engine.url) == 1
            nursery.cancel_scope.cancel()
        with trio.fail_after(20):
            while await busy_slots(engine.url):  # noqa: ASYNC110 -- another process's doing
                await trio.sleep(0.01)


async def test_an_engine_that_is_killed_midway_breaks_off(llama_server: Path, slow_model: Path) -> None:
    async with serving_engine(llama_server, slow_model, ctx=2048) as engine:
        task = Task(TaskRequest(prompt="the river", max_tokens=LONG), "c", trio.current_time())
        failures: list[RelayFailure] = []

        async def relayed() -> None:
            with pytest.raises(RelayFailure) as failure:
                await run(task, engine.url)
            failures.append(failure.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(relayed)
            await tokens(task, 3)
            engine.process.kill()
        (broken,) = failures
        assert (broken.code, broken.retriable, broken.next_step == "elsewhere") == (ErrorCode.WORKER_RESET, True, False)
        with pytest.raises(UpstreamError):
            await busy_slots(engine.url)
        gone = await failed(engine.url)
        assert (gone.code, gone.kind) == (ErrorCode.WORKER_RESET, FailureKind.UNAVAILABLE)
