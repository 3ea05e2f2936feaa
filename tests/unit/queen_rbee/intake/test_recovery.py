"""Accepted tasks survive a restart: they run again, or end with the reason."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskState
from queen_rbee.intake.recovery import restore
from queen_rbee.tasks.event_log import Frame
from queen_rbee.tasks.task import GENERATION_IDS, Task
from tests.unit.queen_rbee.memory_store import MemoryStore
from tests.unit.queen_rbee.queen_core import (
    TIMEOUT_S,
    QueenCore,
    build_queen,
    end_events,
    wait_for_first_token,
    wait_for_free_slots,
)
from tests.unit.queen_rbee.scripted_engine import scripted_engine


@asynccontextmanager
async def next_queen(store: MemoryStore, *, ready: bool = True) -> AsyncIterator[QueenCore]:
    """A running queen with the store of an earlier one."""
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = build_queen(engine, store=store.after_restart())
        await restore(queen.store, queen.intake, queen.book, queen.accounting)
        queen.pool(ready=ready)
        await nursery.start(queen.dispatcher.run, queen.pulse)
        yield queen
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def killed_queen(*, slots: int = 1) -> AsyncIterator[QueenCore]:
    """A queen that is killed when the block is left."""
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = build_queen(engine)
        queen.pool(slots=slots)
        await nursery.start(queen.dispatcher.run, queen.pulse)
        yield queen
        left = queen.store.after_restart()
        nursery.cancel_scope.cancel()
    queen.store = left


def restored_task(queen: QueenCore, task: Task) -> Task:
    restored = queen.book.get(task.task_id)
    assert restored
    return restored


async def wait_until_running(task: Task) -> None:
    with trio.fail_after(TIMEOUT_S):
        while task.state is TaskState.QUEUED:
            await task.log.wait_beyond(task.log.last_id)


def event_id(frame: Frame) -> int:
    return int(frame.data.split(b"\n")[0].removeprefix(b"id: "))


async def test_waiting_task_runs_after_restart_under_the_same_ids():
    async with killed_queen() as queen:
        queen.pool(ready=False)
        before = await queen.accept(max_tokens=2, session_id=None)
    async with next_queen(queen.store) as successor:
        again = restored_task(successor, before)
        assert (await end_events(again))[-1] == "end"
        assert (again.job_id, again.correlation_id) == (before.job_id, before.correlation_id)
        await wait_for_free_slots(successor)
        assert successor.store.tasks == {}


async def test_running_task_without_output_runs_again():
    async with killed_queen() as queen:
        before = await queen.accept("silence")
        await wait_until_running(before)
    async with next_queen(queen.store) as successor:
        again = restored_task(successor, before)
        await wait_until_running(again)
        assert (again.place.pool_id, again.measurements.tokens_out) == ("p", 0)


async def test_unread_tokens_are_not_delivered():
    async with killed_queen() as queen:
        before = await queen.accept("stall")
        await wait_for_first_token(before)
        assert not queen.store.tasks[before.task_id].delivered
    async with next_queen(queen.store) as successor:
        assert restored_task(successor, before).state in (TaskState.QUEUED, TaskState.RUNNING)


async def test_delivered_task_ends_as_retriable_after_restart():
    async with killed_queen() as queen:
        before = await queen.accept("stall")
        await wait_for_first_token(before)
        before.deliver()
        assert queen.store.tasks[before.task_id].delivered
    async with next_queen(queen.store) as successor:
        again = restored_task(successor, before)
        assert again.error
        assert (again.error.code, again.error.retriable) == (ErrorCode.WORKER_RESET, True)
        assert successor.store.tasks == {}
        assert str(before.task_id) in successor.store.documents["record"]
        assert successor.submit(task_id=before.task_id)


async def test_event_ids_rise_after_restart():
    async with killed_queen() as queen:
        queen.pool(ready=False)
        before = await queen.accept()
    async with next_queen(queen.store) as successor:
        again = restored_task(successor, before)
        await end_events(again)
        assert before.log.last_id < GENERATION_IDS < event_id(again.log.frames(before.log.last_id)[0])


async def test_deadline_is_unchanged_by_restart():
    async with killed_queen() as queen:
        queen.pool(ready=False)
        late, in_time = await queen.accept(deadline_ms=60_000), await queen.accept(deadline_ms=3_600_000)
    for task_id, stored in queen.store.tasks.items():
        queen.store.tasks[task_id] = replace(stored, submitted=time.time() - 600)
    async with next_queen(queen.store, ready=False) as successor:
        gone = restored_task(successor, late)
        assert gone.error
        assert (gone.error.code, gone.error.retriable) == (ErrorCode.DEADLINE_UNMET, False)
        left_s = restored_task(successor, in_time).deadline - trio.current_time()
        assert 2990 < left_s <= 3000


async def test_unreadable_task_ends_without_its_prompt():
    async with killed_queen() as queen:
        queen.pool(ready=False)
        before = await queen.accept("a secret")
    stored = queen.store.tasks[before.task_id]
    queen.store.tasks[before.task_id] = replace(stored, request='{"prompt": "a secret", "from_the_future": 1}')
    async with next_queen(queen.store) as successor:
        again = restored_task(successor, before)
        assert again.error
        assert again.error.code == ErrorCode.INTERNAL
        assert "from_the_future" in again.error.message
        assert "secret" not in repr(successor.store.documents)


async def test_restored_tasks_keep_order_beyond_capacity(caplog):
    async with killed_queen() as queen:
        queen.pool(ready=False)
        before = [await queen.accept(f"number {number}") for number in range(5)]
    caplog.set_level("INFO")
    async with scripted_engine() as engine:
        successor = build_queen(engine, capacity=2, store=queen.store.after_restart())
        await restore(successor.store, successor.intake, successor.book, successor.accounting)
    assert [task.task_id for task in successor.queue.order()] == [task.task_id for task in before]
    assert "5 queued again, 0 ended" in caplog.text


async def test_embedding_task_is_restored_as_embedding():
    async with killed_queen() as queen:
        queen.pool(ready=False)
        before = await queen.accept(None, workload="embedding", inputs=("one", "two"))
    async with scripted_engine() as engine:
        successor = build_queen(engine, store=queen.store.after_restart())
        await restore(successor.store, successor.intake, successor.book, successor.accounting)
    passage = restored_task(successor, before).passage
    assert passage
    assert (passage.endpoint, passage.body) == ("embeddings", {"input": ["one", "two"]})
