"""Admission: accepted tasks are stored, impossible ones refused at once, and refusals say when to retry."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import trio
import trio.testing

from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import TaskAccepted, TaskRequest, TaskState
from queen_rbee.store.protocol import StoreFailure
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import QueenCore, build_queen, end_events, running_queen, wait_for_free_slots
from tests.unit.queen_rbee.scripted_engine import scripted_engine


@asynccontextmanager
async def stopped_queen(**options) -> AsyncIterator[QueenCore]:
    """A queen whose dispatcher does not run: admitted tasks wait."""
    async with scripted_engine() as engine:
        queen = build_queen(engine, **options)
        queen.pool()
        yield queen


def add_measurements(queen: QueenCore, held_s: float, *, tokens: int = 10, count: int = 20) -> None:
    """Record `count` tasks that held a slot for `held_s` seconds."""
    for _ in range(count):
        task = Task(TaskRequest(prompt="x"), "c", 0.0)
        task.start("p", "r0", 0.0)
        task.token("x", held_s / 10)
        task.end(1, tokens, held_s)
        queen.forecast.record_end(task)


def refusal_of(queen: QueenCore, **request) -> ApiError:
    with pytest.raises(ApiError) as caught:
        queen.submit(**request)
    return caught.value


async def test_task_is_stored_before_the_client_gets_202():
    async with stopped_queen() as queen:
        request = TaskRequest(prompt="hello", max_tokens=5)
        task, position, body = await queen.intake.submit(request, "find-me", "00-trace")
        stored = queen.store.tasks[task.task_id]
        assert (stored.job_id, stored.correlation_id, stored.traceparent) == (task.job_id, "find-me", "00-trace")
        assert TaskRequest.model_validate_json(stored.request) == TaskRequest(prompt="hello", max_tokens=5)
        answer = TaskAccepted.model_validate_json(body)
        assert (answer.task_id, answer.queue_position, position) == (task.task_id, 0, 0)


async def test_prompt_is_forgotten_when_the_task_ends():
    async with running_queen() as queen:
        task = await queen.accept("hello, a secret")
        await end_events(task)
        await wait_for_free_slots(queen)
        assert queen.store.tasks == {}
        assert "secret" not in repr(queen.store.documents) + repr(task.request)


async def test_task_that_cannot_be_stored_is_refused():
    async with stopped_queen(capacity=1) as queen:
        queen.store.failure = StoreFailure("the disk is full", "Make room.")
        with pytest.raises(ApiError) as caught:
            await queen.accept()
        assert (caught.value.status, caught.value.body.retriable) == (503, True)
        assert (caught.value.body.message, caught.value.body.hint) == ("the disk is full", "Make room.")
        assert len(queen.queue) == 0
        queen.store.failure = None
        await queen.accept()


async def test_client_that_leaves_before_202_withdraws_the_task():
    async with stopped_queen() as queen:
        with trio.CancelScope() as scope:
            scope.cancel()
            await queen.accept()
        assert queen.store.tasks == {}
        assert len(queen.queue) == 0


async def test_deadline_impossible_without_wait_is_not_retriable():
    async with stopped_queen() as queen:
        add_measurements(queen, held_s=10.0)
        refusal = refusal_of(queen, deadline_ms=100)
        assert (refusal.status, refusal.body.code) == (409, ErrorCode.DEADLINE_UNMET)
        assert not refusal.body.retriable
        assert "100 ms" in refusal.body.message
        assert len(queen.queue) == 0


async def test_deadline_impossible_by_queue_is_retriable():
    async with stopped_queen() as queen:
        add_measurements(queen, held_s=1.0)
        for _ in range(40):
            queen.submit()
        refusal = refusal_of(queen, deadline_ms=3000)
        assert (refusal.status, refusal.body.code) == (409, ErrorCode.DEADLINE_UNMET)
        assert refusal.body.retriable
        assert (refusal.body.retry_after_ms or 0) > 10_000
        assert int(dict(refusal.headers)["retry-after"]) * 1000 >= (refusal.body.retry_after_ms or 0)


async def test_short_answer_meets_a_deadline_that_a_long_one_misses():
    async with stopped_queen() as queen:
        add_measurements(queen, held_s=10.0, tokens=100)
        assert queen.submit(deadline_ms=4000, expected_tokens=5).state is TaskState.QUEUED
        assert refusal_of(queen, deadline_ms=4000).body.code is ErrorCode.DEADLINE_UNMET


async def test_deadline_is_accepted_without_measurements():
    async with stopped_queen() as queen:
        assert queen.submit(deadline_ms=1).state is TaskState.QUEUED


@pytest.mark.parametrize(
    ("pool", "request_", "status", "code"),
    [
        ({"ctx_max": 512}, {"ctx": 1024}, 400, ErrorCode.INVALID_PARAMS),
        ({"ctx_max": 512}, {"max_tokens": 513}, 400, ErrorCode.INVALID_PARAMS),
        ({"models_available": ["a.gguf"]}, {"model_ref": "b"}, 400, ErrorCode.INVALID_PARAMS),
        ({}, {"engine": "vllm"}, 400, ErrorCode.INVALID_PARAMS),
        ({}, {"placement": {"mode": "pin", "pin_pool_id": "q"}}, 409, ErrorCode.POOL_UNAVAILABLE),
        ({"state": PoolState.FAILED, "ready": False, "live": False}, {}, 503, ErrorCode.POOL_UNREADY),
        ({"engine": "from-the-future"}, {}, 400, ErrorCode.INVALID_PARAMS),
    ],
)
async def test_task_that_no_pool_serves_is_refused(pool, request_, status, code):
    async with stopped_queen() as queen:
        queen.pool(**pool)
        refusal = refusal_of(queen, **request_)
        assert (refusal.status, refusal.body.code) == (status, code)
        assert refusal.body.hint
        assert refusal.body.retriable == (status == 503)


@pytest.mark.parametrize(
    ("request_", "field"), [({"ctx": 8192, "max_tokens": 9}, "ctx"), ({"max_tokens": 8192}, "max_tokens")]
)
async def test_task_beyond_the_context_is_told_its_size(request_, field):
    async with stopped_queen() as queen:
        queen.pool(ctx_max=1024)
        body = refusal_of(queen, **request_).body
        assert (body.message, body.reason) == (f"{field} 8192, room for 1024", "context_length_exceeded")
        assert [problem.field for problem in body.fields or ()] == [field]


async def test_unknown_model_is_accepted_until_pools_are_synced():
    async with stopped_queen() as queen:
        queen.registry.synced = False
        assert queen.submit(model_ref="unheard-of").state is TaskState.QUEUED


async def test_context_equal_to_the_pools_is_accepted():
    async with stopped_queen() as queen:
        queen.pool(ctx_max=512)
        assert queen.submit(ctx=512, max_tokens=512).state is TaskState.QUEUED


async def test_task_id_is_reusable_after_retriable_failure_only():
    async with stopped_queen() as queen:
        for retriable in (True, False):
            task_id = uuid4()
            task = queen.submit(task_id=task_id)
            queen.dispatcher.drop(task, ErrorCode.WORKER_RESET, "over", retriable=retriable)
            if retriable:
                assert queen.submit(task_id=task_id).task_id == task_id
            else:
                assert refusal_of(queen, task_id=task_id).status == 409


async def test_full_queue_keeps_a_reserved_place(autojump_clock):
    async with stopped_queen(capacity=10) as queen:
        queen.pool(slots=1)
        add_measurements(queen, held_s=1.0)
        waiting = [queen.submit(f"number {number}") for number in range(10)]
        refusal = refusal_of(queen, prompt="obedient")
        await trio.sleep((refusal.body.retry_after_ms or 0) / 1000)
        queen.dispatcher.cancel(waiting[0])
        assert refusal_of(queen, prompt="a newcomer").status == 429
        assert queen.submit("obedient").state is TaskState.QUEUED


async def test_dropped_task_gets_a_retry_time():
    async with stopped_queen(capacity=1, policy="drop-lru") as queen:
        old = queen.submit()
        queen.submit()
        assert old.error
        assert (old.error.code, old.error.retriable) == (ErrorCode.QUEUE_FULL_DROP_LRU, True)
        assert (old.error.retry_after_ms or 0) > 0
        assert f'"retry_after_ms":{old.error.retry_after_ms}'.encode() in old.log.frames(0)[-1].data


async def test_dropped_task_that_retries_on_time_is_not_dropped(autojump_clock):
    async with stopped_queen(capacity=1, policy="drop-lru") as queen:
        dropped = queen.submit("obedient", priority="batch")
        newer = queen.submit("another", priority="interactive")
        assert dropped.error
        await trio.sleep((dropped.error.retry_after_ms or 0) / 1000)
        back = queen.submit("obedient", priority="batch")
        assert newer.state is TaskState.FAILED
        assert refusal_of(queen, prompt="a newcomer").status == 429
        assert back.state is TaskState.QUEUED


async def test_dropped_task_that_retries_early_is_refused(autojump_clock):
    async with stopped_queen(capacity=1, policy="drop-lru") as queen:
        queen.submit("hasty", priority="batch")
        queen.submit("another", priority="interactive")
        assert refusal_of(queen, prompt="hasty", priority="batch").status == 429


async def test_dropped_tasks_share_one_log_line_and_no_artifact(caplog):
    async with stopped_queen(capacity=1, policy="drop-lru") as queen:
        for _ in range(5):
            await queen.accept()
        accounting = queen.accounting
        assert "dropped" not in caplog.text
        for _ in range(2):
            accounting.report_dropped()
        assert caplog.text.count("4 waiting tasks were dropped") == 1
        assert len(queen.store.documents["record"]) == 4
        assert queen.store.documents["artifact"] == {}


async def test_stopping_queen_refuses_with_503():
    async with stopped_queen() as queen:
        queen.intake.close()
        refusal = refusal_of(queen)
        assert (refusal.status, refusal.body.retriable) == (503, True)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": None, "workload": "embedding"}, "inputs"),
        ({"prompt": None, "workload": "rerank", "inputs": ("a",)}, "prompt"),
        ({"workload": "rerank"}, "inputs"),
    ],
)
async def test_missing_input_of_workload_names_the_field(request_, field):
    async with stopped_queen() as queen:
        refusal = refusal_of(queen, **request_)
        assert refusal.status == 400
        assert [problem.field for problem in refusal.body.fields or ()] == [field]


async def test_position_and_predicted_start_follow_the_queue():
    async with stopped_queen() as queen:
        queen.pool(slots=1)
        add_measurements(queen, held_s=2.0)
        tasks = [queen.submit() for _ in range(3)]
        assert [queen.intake.position(task)[0] for task in tasks] == [0, 1, 2]
        starts = [queen.intake.position(task)[1] or 0 for task in tasks]
        assert starts[0] == 0
        assert starts == sorted(starts)
        assert starts[2] == pytest.approx(4000, rel=0.01)
        queen.dispatcher.cancel(tasks[0])
        assert queen.intake.position(tasks[2])[0] == 1
