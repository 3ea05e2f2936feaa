"""The record that a task leaves says what is needed to run it again, and never what was asked or answered."""

import json
from typing import Any
from uuid import uuid4

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from llama_orch.contracts.catalog import NewModel
from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Endpoint, Passage
from queen_rbee.tasks.records import OF_BODY, of_body, of_request, task_record
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import SOON_S, Queen, ended, running
from tests.unit.queen_rbee.scripted_engine import HEAD, chunk

CANARY = "canary-5f0e"
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def record_of(task: Task, queen: Queen) -> Any:
    """The content of the one artifact that `task` has left."""
    [found] = [doc for doc in queen.store.documents["artifact"].values() if f"task:{task.task_id}" in doc.body]
    _head, content = json.loads(found.body)
    return content


async def closed(task: Task) -> Task:
    """`task`, once it has ended and is accounted for."""
    await ended(task)
    with trio.fail_after(SOON_S):
        while task.request.prompt is not None or task.passage is not None:
            await trio.lowlevel.checkpoint()
    return task


def quoting(end: str):
    """What an engine does that repeats what it was asked, in its answer and in what it complains of."""
    token = chunk(b'data: {"content":"%s","stop":false}\n\n' % CANARY.encode())
    last = chunk(b'data: {"content":"","stop":true,"tokens_evaluated":3,"tokens_predicted":1}\n\n') + b"0\r\n\r\n"
    wrong = b'{"error":{"code":400,"message":"cannot read \'%s\'"}}' % CANARY.encode()

    async def act(stream: trio.SocketStream, _request: bytes) -> None:
        if end == "done":
            await stream.send_all(HEAD + token + last)
        elif end == "midway":
            await stream.send_all(HEAD + token + chunk(b"data: " + wrong + b"\n\n"))
        elif end == "cut":
            await stream.send_all(HEAD + token)
        else:
            status = b"400 Bad" if end == "refused" else b"500 Oops"
            await stream.send_all(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(wrong), wrong))

    return act


ENDS = st.sampled_from(["done", "midway", "cut", "refused", "broken", "cancelled", "dropped"])
surroundings = st.text(st.characters(codec="utf-8"), max_size=20)


@SLOW
@given(
    ENDS,
    st.tuples(surroundings, surroundings),
    st.booleans(),
    st.fixed_dictionaries({}, optional={"max_tokens": st.integers(1, 9), "seed": st.integers(0, 9)}),
)
def test_whatever_a_task_asks_and_however_it_ends_its_record_has_no_word_of_it(
    end: str, around: tuple[str, str], durable: bool, options: dict[str, int]
):
    async def play() -> None:
        async with running() as queen:
            secret = CANARY.join(around)
            request = {"session_id": uuid4(), "stop": (CANARY,), **options}
            vars(queen.engine)["act"] = quoting(end)
            task = await queen.accept(secret, **request) if durable else queen.submit(secret, **request)
            if end == "cancelled":
                queen.dispatcher.cancel(task)
            if end == "dropped":
                queen.dispatcher.drop(task, ErrorCode.DEADLINE_UNMET, "late", retriable=False)
            await closed(task)
            assert record_of(task, queen)["task"]["state"] == task.state
            for kind in ("artifact", "session", "model"):
                assert CANARY not in repr(queen.store.documents[kind])
            assert CANARY not in repr(queen.store.tasks) + repr(task.request) + repr(task.passage)

    trio.run(play)


leaves = st.sampled_from([CANARY, f"{CANARY}.png", 1, 2.5, True, None, float("nan"), 2**65])
json_values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just(CANARY), inner, max_size=1),
    max_leaves=5,
)
names = st.sampled_from([*OF_BODY, "messages", "prompt", "input", "tools", "user", "stop", "metadata", CANARY])


@settings(deadline=None)
@given(st.dictionaries(names, json_values, max_size=8))
def test_of_an_openai_body_only_numbers_and_truth_values_are_kept(body: dict[str, JsonValue]):
    kept = of_body(body)
    assert set(kept) <= set(OF_BODY)
    assert all(isinstance(value, (bool, int, float)) for value in kept.values())
    json.dumps(kept, allow_nan=False)


@SLOW
@given(
    st.sampled_from(["chat", "completions", "embeddings", "rerank"]),
    st.dictionaries(names, json_values, max_size=6),
)
def test_the_record_of_a_v1_request_has_no_word_of_its_body(endpoint: Endpoint, body: dict[str, JsonValue]):
    passage = Passage(endpoint, {"messages": [{"content": CANARY}], **body}, 10)
    task = Task(TaskRequest(), "c", 0.0, passage)
    task.fail(ErrorCode.INVALID_PARAMS, f"engine: {CANARY}", 1.0, retriable=False)
    made = task_record(task.view(), task.request, None, passage)
    assert CANARY not in made.model_dump_json()
    assert CANARY not in repr(made)
    assert json.loads(made.model_dump_json())["content"]["endpoint"] == endpoint


async def test_it_has_what_is_needed_to_run_the_task_again():
    async with running() as queen:
        queen.pool(models_available=["hf:org/repo/tiny.gguf"], engine_version="b6000", device_mask="0,1")
        await queen.dispatcher.accounting.catalog.add(NewModel(id="mine", model_ref="tiny"))
        session_id = uuid4()
        options = {"seed": 7, "max_tokens": 9, "temperature": 0.5, "determinism": "strict", "ctx": 64}
        task = queen.submit("hello", model_ref="mine", session_id=session_id, stop=("a", "b"), **options)
        await closed(task)
        found = record_of(task, queen)
        assert found["engine"] == {
            "name": "llamacpp",
            "version": "b6000",
            "model": "hf:org/repo/tiny.gguf",
            "device_mask": "0,1",
        }
        assert found["parameters"] == {**options, "stop": 2}
        assert found["endpoint"] == "completion"
        told = found["task"]
        assert (told["state"], told["pool_id"], told["replica_id"]) == ("done", "p", "r0")
        assert told["usage"] == {"tokens_in": 3, "tokens_out": 2}
        assert told["timings"]["started_at"]
        assert told["session_id"] == str(session_id)


async def test_it_is_found_by_its_task_its_state_and_its_session():
    async with running() as queen:
        session_id = uuid4()
        task = await closed(queen.submit("hello", session_id=session_id))
        heads, _next = await queen.dispatcher.accounting.artifacts.listed(
            kind="task", tag=f"session:{session_id}", limit=5, before=None
        )
        assert [head.tags for head in heads] == [[f"task:{task.task_id}", "state:done", f"session:{session_id}"]]


async def test_a_task_that_was_never_placed_leaves_one_too():
    async with running() as queen:
        queen.pool(ready=False)
        task = queen.submit("hello")
        queen.dispatcher.cancel(task)
        found = record_of(await closed(task), queen)
        assert found["engine"] is None
        assert found["task"]["state"] == "cancelled"
        assert found["task"]["error"] == {"code": "CANCELLED", "retriable": False}


async def test_every_ended_task_leaves_just_one():
    async with running() as queen:
        tasks = [queen.submit(prompt) for prompt in ("hello", "refuse", "break", "hang up", "midway")]
        for task in tasks:
            await closed(task)
        assert len(queen.store.documents["artifact"]) == len(tasks)
        assert {record_of(task, queen)["task"]["task_id"] for task in tasks} == {str(task.task_id) for task in tasks}


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({}, {}),
        ({"temperature": 0.0, "seed": 0}, {"temperature": 0.0, "seed": 0}),
        ({"inputs": ("a", "b"), "stop": ("c",)}, {"inputs": 2, "stop": 1}),
        ({"kv_hint": "cold", "output_mode": "json"}, {"kv_hint": "cold", "output_mode": "json"}),
    ],
)
def test_parameters_are_those_that_were_given_and_texts_are_counted(given_: dict[str, Any], told: dict[str, JsonValue]):
    assert of_request(TaskRequest(**given_)) == {"determinism": "best_effort", **told}
