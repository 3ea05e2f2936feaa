"""Admission: what is accepted is stored, what cannot be met is refused at once, and every refusal says when to come."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import trio
import trio.testing

from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import TaskRequest, TaskState
from queen_rbee.store.protocol import StoreFailure
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import Queen, core, ended, running, slots_are_free
from tests.unit.queen_rbee.scripted_engine import scripted_engine


@asynccontextmanager
async def still(**options) -> AsyncIterator[Queen]:
    """A queen whose dispatcher does not run: whatever is admitted waits."""
    async with scripted_engine() as engine:
        queen = core(engine, **options)
        queen.pool()
        yield queen


def measured(queen: Queen, held_s: float, *, tokens: int = 10, count: int = 20) -> None:
    """Let the queen have seen `count` tasks that held a slot for so long."""
    for _ in range(count):
        task = Task(TaskRequest(prompt="x"), "c", 0.0)
        task.start("p", "r0", 0.0)
        task.token("x", held_s / 10)
        task.end(1, tokens, held_s)
        queen.dispatcher.forecast.ended(task)


def refused(queen: Queen, **request) -> ApiError:
    with pytest.raises(ApiError) as caught:
        queen.submit(**request)
    return caught.value


async def test_an_accepted_task_is_in_the_store_before_its_client_hears_of_it():
    async with still() as queen:
        task, answer = await queen.intake.submit(TaskRequest(prompt="hello", max_tokens=5), "find-me", "00-trace")
        kept = queen.store.tasks[task.task_id]
        assert (kept.job_id, kept.correlation_id, kept.traceparent) == (task.job_id, "find-me", "00-trace")
        assert TaskRequest.model_validate_json(kept.request) == TaskRequest(prompt="hello", max_tokens=5)
        assert (answer.task_id, answer.queue_position) == (task.task_id, 0)


async def test_the_prompt_leaves_store_and_memory_when_the_task_ends():
    async with running() as queen:
        task = await queen.accept("hello, a secret")
        await ended(task)
        await slots_are_free(queen)
        assert queen.store.tasks == {}
        assert "secret" not in repr(queen.store.documents) + repr(task.request)


async def test_what_cannot_be_stored_is_not_accepted_and_takes_nobodys_place():
    async with still(capacity=1) as queen:
        queen.store.failure = StoreFailure("the disk is full", "Make room.")
        with pytest.raises(ApiError) as caught:
            await queen.accept()
        assert (caught.value.status, caught.value.body.retriable) == (503, True)
        assert (caught.value.body.message, caught.value.body.hint) == ("the disk is full", "Make room.")
        assert len(queen.dispatcher.queue) == 0
        queen.store.failure = None
        await queen.accept()


async def test_a_task_whose_storing_is_cancelled_is_forgotten_with_its_client():
    async with still() as queen:
        with trio.CancelScope() as scope:
            scope.cancel()
            await queen.accept()
        assert queen.store.tasks == {}
        assert len(queen.dispatcher.queue) == 0


async def test_a_deadline_that_cannot_be_met_even_without_a_wait_is_refused_and_says_so():
    async with still() as queen:
        measured(queen, held_s=10.0)
        refusal = refused(queen, deadline_ms=100)
        assert (refusal.status, refusal.body.code) == (409, ErrorCode.DEADLINE_UNMET)
        assert not refusal.body.retriable
        assert "100 ms" in refusal.body.message
        assert len(queen.dispatcher.queue) == 0


async def test_a_deadline_that_only_the_queue_makes_impossible_may_come_again_and_is_told_when():
    async with still() as queen:
        measured(queen, held_s=1.0)
        for _ in range(40):
            queen.submit()
        refusal = refused(queen, deadline_ms=3000)
        assert (refusal.status, refusal.body.code) == (409, ErrorCode.DEADLINE_UNMET)
        assert refusal.body.retriable
        assert (refusal.body.retry_after_ms or 0) > 10_000
        assert int(dict(refusal.headers)["retry-after"]) * 1000 >= (refusal.body.retry_after_ms or 0)


async def test_short_answers_meet_deadlines_that_long_ones_do_not():
    async with still() as queen:
        measured(queen, held_s=10.0, tokens=100)
        assert queen.submit(deadline_ms=4000, expected_tokens=5).state is TaskState.QUEUED
        assert refused(queen, deadline_ms=4000).body.code is ErrorCode.DEADLINE_UNMET


async def test_nothing_measured_speaks_against_a_deadline():
    async with still() as queen:
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
async def test_what_no_pool_can_do_is_refused_with_the_reason(pool, request_, status, code):
    async with still() as queen:
        queen.pool(**pool)
        refusal = refused(queen, **request_)
        assert (refusal.status, refusal.body.code) == (status, code)
        assert refusal.body.hint
        assert refusal.body.retriable == (status == 503)


@pytest.mark.parametrize(
    ("request_", "field"), [({"ctx": 8192, "max_tokens": 9}, "ctx"), ({"max_tokens": 8192}, "max_tokens")]
)
async def test_a_task_without_room_is_told_how_much_there_is(request_, field):
    async with still() as queen:
        queen.pool(ctx_max=1024)
        body = refused(queen, **request_).body
        assert (body.message, body.reason) == (f"{field} 8192, room for 1024", "context_length_exceeded")
        assert [problem.field for problem in body.fields or ()] == [field]


async def test_while_pools_are_still_being_asked_nothing_is_refused_for_them():
    async with still() as queen:
        queen.dispatcher.registry.synced = False
        assert queen.submit(model_ref="unheard-of").state is TaskState.QUEUED


async def test_context_just_as_large_as_the_pools_is_accepted():
    async with still() as queen:
        queen.pool(ctx_max=512)
        assert queen.submit(ctx=512, max_tokens=512).state is TaskState.QUEUED


async def test_a_retriable_failure_gives_the_task_id_back_and_another_does_not():
    async with still() as queen:
        for retriable in (True, False):
            task_id = uuid4()
            task = queen.submit(task_id=task_id)
            queen.dispatcher.drop(task, ErrorCode.WORKER_RESET, "over", retriable=retriable)
            if retriable:
                assert queen.submit(task_id=task_id).task_id == task_id
            else:
                assert refused(queen, task_id=task_id).status == 409


async def test_a_full_queue_keeps_the_place_of_whoever_comes_back_when_it_was_told_to(autojump_clock):
    async with still(capacity=10) as queen:
        queen.pool(slots=1)
        measured(queen, held_s=1.0)
        waiting = [queen.submit(f"number {number}") for number in range(10)]
        refusal = refused(queen, prompt="obedient")
        await trio.sleep((refusal.body.retry_after_ms or 0) / 1000)
        queen.dispatcher.cancel(waiting[0])
        assert refused(queen, prompt="a newcomer").status == 429
        assert queen.submit("obedient").state is TaskState.QUEUED


async def test_who_is_dropped_for_a_newer_task_hears_when_to_come_again():
    async with still(capacity=1, policy="drop-lru") as queen:
        old = queen.submit()
        queen.submit()
        assert old.error
        assert (old.error.code, old.error.retriable) == (ErrorCode.QUEUE_FULL_DROP_LRU, True)
        assert (old.error.retry_after_ms or 0) > 0
        assert f'"retry_after_ms":{old.error.retry_after_ms}'.encode() in old.log.frames(0)[-1].data


async def test_who_was_dropped_and_comes_back_when_it_was_told_to_gives_way_to_nobody(autojump_clock):
    async with still(capacity=1, policy="drop-lru") as queen:
        dropped = queen.submit("obedient", priority="batch")
        newer = queen.submit("another", priority="interactive")
        assert dropped.error
        await trio.sleep((dropped.error.retry_after_ms or 0) / 1000)
        back = queen.submit("obedient", priority="batch")
        assert newer.state is TaskState.FAILED
        assert refused(queen, prompt="a newcomer").status == 429
        assert back.state is TaskState.QUEUED


async def test_who_was_dropped_and_comes_back_too_soon_is_a_newcomer(autojump_clock):
    async with still(capacity=1, policy="drop-lru") as queen:
        queen.submit("hasty", priority="batch")
        queen.submit("another", priority="interactive")
        assert refused(queen, prompt="hasty", priority="batch").status == 429


async def test_many_that_are_dropped_are_one_line_in_the_log_and_no_artifacts(caplog):
    async with still(capacity=1, policy="drop-lru") as queen:
        for _ in range(5):
            await queen.accept()
        accounting = queen.dispatcher.accounting
        assert "dropped" not in caplog.text
        for _ in range(2):
            accounting.report_dropped()
        assert caplog.text.count("4 waiting tasks were dropped") == 1
        assert len(queen.store.documents["record"]) == 4
        assert queen.store.documents["artifact"] == {}


async def test_while_stopping_nothing_is_taken_in_and_the_refusal_may_be_repeated():
    async with still() as queen:
        queen.intake.close()
        refusal = refused(queen)
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
async def test_a_workload_that_lacks_what_it_works_on_names_the_field(request_, field):
    async with still() as queen:
        refusal = refused(queen, **request_)
        assert refusal.status == 400
        assert [problem.field for problem in refusal.body.fields or ()] == [field]


async def test_the_position_and_the_start_that_are_told_follow_the_queue():
    async with still() as queen:
        queen.pool(slots=1)
        measured(queen, held_s=2.0)
        tasks = [queen.submit() for _ in range(3)]
        assert [queen.intake.position(task)[0] for task in tasks] == [0, 1, 2]
        starts = [queen.intake.position(task)[1] or 0 for task in tasks]
        assert starts[0] == 0
        assert starts == sorted(starts)
        assert starts[2] == pytest.approx(4000, rel=0.01)
        queen.dispatcher.cancel(tasks[0])
        assert queen.intake.position(tasks[2])[0] == 1
