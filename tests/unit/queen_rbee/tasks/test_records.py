"""A task's record has what is needed to reproduce it, without prompt or answer."""

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
from queen_rbee.tasks.records import BODY_FIELDS, body_parameters, request_parameters, task_record
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import TIMEOUT_S, QueenCore, end_events, running_queen
from tests.unit.queen_rbee.scripted_engine import HEAD, chunk

CANARY = "canary-5f0e"
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def record_of(task: Task, queen: QueenCore) -> Any:
    """Return the content of the task's only artifact."""
    [record] = [doc for doc in queen.store.documents["artifact"].values() if f"task:{task.task_id}" in doc.body]
    _head, content = json.loads(record.body)
    return content


async def wait_for_end(task: Task) -> Task:
    """Wait until `task` has ended and is accounted for."""
    await end_events(task)
    with trio.fail_after(TIMEOUT_S):
        while task.request.prompt is not None or task.passage is not None:
            await trio.lowlevel.checkpoint()
    return task


def quoting(end: str):
    """Return a response function that repeats the prompt in the answer or in the error."""
    token = chunk(b'data: {"content":"%s","stop":false}\n\n' % CANARY.encode())
    last = chunk(b'data: {"content":"","stop":true,"tokens_evaluated":3,"tokens_predicted":1}\n\n') + b"0\r\n\r\n"
    wrong = b'{"error":{"code":400,"message":"cannot read \'%s\'"}}' % CANARY.encode()

    async def respond(stream: trio.SocketStream, _request: bytes) -> None:
        if end == "done":
            await stream.send_all(HEAD + token + last)
        elif end == "midway":
            await stream.send_all(HEAD + token + chunk(b"data: " + wrong + b"\n\n"))
        elif end == "cut":
            await stream.send_all(HEAD + token)
        else:
            status = b"400 Bad" if end == "refused" else b"500 Oops"
            await stream.send_all(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(wrong), wrong))

    return respond


ENDS = st.sampled_from(["done", "midway", "cut", "refused", "broken", "cancelled", "dropped"])
surroundings = st.text(st.characters(codec="utf-8"), max_size=20)


@SLOW
@given(
    ENDS,
    st.tuples(surroundings, surroundings),
    st.booleans(),
    st.fixed_dictionaries({}, optional={"max_tokens": st.integers(1, 9), "seed": st.integers(0, 9)}),
)
def test_record_never_contains_the_prompt(end: str, around: tuple[str, str], durable: bool, options: dict[str, int]):
    async def play() -> None:
        async with running_queen() as queen:
            secret = CANARY.join(around)
            request = {"session_id": uuid4(), "stop": (CANARY,), **options}
            vars(queen.engine)["respond"] = quoting(end)
            task = await queen.accept(secret, **request) if durable else queen.submit(secret, **request)
            if end == "cancelled":
                queen.dispatcher.cancel(task)
            if end == "dropped":
                queen.dispatcher.drop(task, ErrorCode.DEADLINE_UNMET, "late", retriable=False)
            await wait_for_end(task)
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
names = st.sampled_from([*BODY_FIELDS, "messages", "prompt", "input", "tools", "user", "stop", "metadata", CANARY])


@settings(deadline=None)
@given(st.dictionaries(names, json_values, max_size=8))
def test_only_numbers_and_booleans_of_a_body_are_recorded(body: dict[str, JsonValue]):
    recorded = body_parameters(body)
    assert set(recorded) <= set(BODY_FIELDS)
    assert all(isinstance(value, (bool, int, float)) for value in recorded.values())
    json.dumps(recorded, allow_nan=False)


@SLOW
@given(
    st.sampled_from(["chat", "completions", "embeddings", "rerank"]),
    st.dictionaries(names, json_values, max_size=6),
)
def test_record_of_v1_request_has_no_text_of_its_body(endpoint: Endpoint, body: dict[str, JsonValue]):
    passage = Passage(endpoint, {"messages": [{"content": CANARY}], **body}, 10)
    task = Task(TaskRequest(), "c", 0.0, passage)
    task.fail(ErrorCode.INVALID_PARAMS, f"engine: {CANARY}", 1.0, retriable=False)
    made = task_record(task.view(), task.request, None, passage)
    assert CANARY not in made.model_dump_json()
    assert CANARY not in repr(made)
    assert json.loads(made.model_dump_json())["content"]["endpoint"] == endpoint


async def test_record_reproduces_the_task():
    async with running_queen() as queen:
        queen.pool(models_available=["hf:org/repo/tiny.gguf"], engine_version="b6000", device_mask="0,1")
        await queen.catalog.add(NewModel(id="mine", model_ref="tiny"))
        session_id = uuid4()
        options = {"seed": 7, "max_tokens": 9, "temperature": 0.5, "determinism": "strict", "ctx": 64}
        task = queen.submit("hello", model_ref="mine", session_id=session_id, stop=("a", "b"), **options)
        await wait_for_end(task)
        record = record_of(task, queen)
        assert record["engine"] == {
            "name": "llamacpp",
            "version": "b6000",
            "model": "hf:org/repo/tiny.gguf",
            "device_mask": "0,1",
        }
        assert record["parameters"] == {**options, "stop": 2}
        assert record["endpoint"] == "completion"
        view = record["task"]
        assert (view["state"], view["pool_id"], view["replica_id"]) == ("done", "p", "r0")
        assert view["usage"] == {"tokens_in": 3, "tokens_out": 2}
        assert view["timings"]["started_at"]
        assert view["session_id"] == str(session_id)


async def test_record_is_tagged_with_task_state_and_session():
    async with running_queen() as queen:
        session_id = uuid4()
        task = await wait_for_end(queen.submit("hello", session_id=session_id))
        heads, _next = await queen.artifacts.listed(kind="task", tag=f"session:{session_id}", limit=5, before=None)
        assert [head.tags for head in heads] == [[f"task:{task.task_id}", "state:done", f"session:{session_id}"]]


async def test_unplaced_task_leaves_a_record():
    async with running_queen() as queen:
        queen.pool(ready=False)
        task = queen.submit("hello")
        queen.dispatcher.cancel(task)
        record = record_of(await wait_for_end(task), queen)
        assert record["engine"] is None
        assert record["task"]["state"] == "cancelled"
        assert record["task"]["error"] == {"code": "CANCELLED", "retriable": False}


async def test_each_ended_task_leaves_one_record():
    async with running_queen() as queen:
        tasks = [queen.submit(prompt) for prompt in ("hello", "refuse", "break", "hang up", "midway")]
        for task in tasks:
            await wait_for_end(task)
        assert len(queen.store.documents["artifact"]) == len(tasks)
        assert {record_of(task, queen)["task"]["task_id"] for task in tasks} == {str(task.task_id) for task in tasks}


@pytest.mark.parametrize(
    ("request_", "recorded"),
    [
        ({}, {}),
        ({"temperature": 0.0, "seed": 0}, {"temperature": 0.0, "seed": 0}),
        ({"inputs": ("a", "b"), "stop": ("c",)}, {"inputs": 2, "stop": 1}),
        ({"kv_hint": "cold", "output_mode": "json"}, {"kv_hint": "cold", "output_mode": "json"}),
    ],
)
def test_parameters_are_recorded_and_texts_counted(request_: dict[str, Any], recorded: dict[str, JsonValue]):
    assert request_parameters(TaskRequest(**request_)) == {"determinism": "best_effort", **recorded}
