"""What a queen had accepted the next one knows: it waits again, or its client is told why not."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskState
from queen_rbee.intake.restoring import restore
from queen_rbee.tasks.event_log import Frame
from queen_rbee.tasks.task import GENERATION_IDS, Task
from tests.unit.queen_rbee.core import SOON_S, Queen, core, ended, first_token, slots_are_free
from tests.unit.queen_rbee.memory_store import MemoryStore
from tests.unit.queen_rbee.scripted_engine import scripted_engine


@asynccontextmanager
async def next_queen(store: MemoryStore, *, ready: bool = True) -> AsyncIterator[Queen]:
    """A queen over what another has left; it dispatches."""
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = core(engine, store=store.after_restart())
        await restore(queen.store, queen.intake, queen.dispatcher.accounting)
        queen.pool(ready=ready)
        await nursery.start(queen.dispatcher.run, queen.pulse)
        yield queen
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def killed_queen(*, slots: int = 1) -> AsyncIterator[Queen]:
    """A queen that ends without a word when the block is left."""
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = core(engine)
        queen.pool(slots=slots)
        await nursery.start(queen.dispatcher.run, queen.pulse)
        yield queen
        left = queen.store.after_restart()
        nursery.cancel_scope.cancel()
    queen.store = left


def known(queen: Queen, task: Task) -> Task:
    found = queen.dispatcher.book.get(task.task_id)
    assert found
    return found


async def started(task: Task) -> None:
    with trio.fail_after(SOON_S):
        while task.state is TaskState.QUEUED:
            await task.log.wait_beyond(task.log.last_id)


def number(frame: Frame) -> int:
    return int(frame.data.split(b"\n")[0].removeprefix(b"id: "))


async def test_a_task_that_waited_waits_again_and_runs_under_the_same_ids():
    async with killed_queen() as queen:
        queen.pool(ready=False)
        before = await queen.accept(max_tokens=2, session_id=None)
    async with next_queen(queen.store) as heir:
        again = known(heir, before)
        assert (await ended(again))[-1] == "end"
        assert (again.job_id, again.correlation_id) == (before.job_id, before.correlation_id)
        await slots_are_free(heir)
        assert heir.store.tasks == {}


async def test_a_task_that_ran_and_had_shown_nothing_runs_again_from_the_start():
    async with killed_queen() as queen:
        before = await queen.accept("silence")
        await started(before)
    async with next_queen(queen.store) as heir:
        again = known(heir, before)
        await started(again)
        assert (again.pool_id, again.tokens_out) == ("p", 0)


async def test_tokens_that_nobody_was_given_do_not_count_as_delivered():
    async with killed_queen() as queen:
        before = await queen.accept("stall")
        await first_token(before)
        assert not queen.store.tasks[before.task_id].delivered
    async with next_queen(queen.store) as heir:
        assert known(heir, before).state in (TaskState.QUEUED, TaskState.RUNNING)


async def test_a_task_of_which_a_reader_was_given_tokens_ends_and_may_be_sent_again():
    async with killed_queen() as queen:
        before = await queen.accept("stall")
        await first_token(before)
        before.deliver()
        assert queen.store.tasks[before.task_id].delivered
    async with next_queen(queen.store) as heir:
        again = known(heir, before)
        assert again.error
        assert (again.error.code, again.error.retriable) == (ErrorCode.WORKER_RESET, True)
        assert heir.store.tasks == {}
        assert str(before.task_id) in heir.store.documents["record"]
        assert heir.submit(task_id=before.task_id)


async def test_events_of_the_second_run_have_higher_ids_than_any_of_the_first():
    async with killed_queen() as queen:
        queen.pool(ready=False)
        before = await queen.accept()
    async with next_queen(queen.store) as heir:
        again = known(heir, before)
        await ended(again)
        assert before.log.last_id < GENERATION_IDS < number(again.log.frames(before.log.last_id)[0])


async def test_a_deadline_is_where_it_was_and_one_that_has_passed_ends_the_task():
    async with killed_queen() as queen:
        queen.pool(ready=False)
        late, in_time = await queen.accept(deadline_ms=60_000), await queen.accept(deadline_ms=3_600_000)
    for task_id, stored in queen.store.tasks.items():
        queen.store.tasks[task_id] = replace(stored, submitted=time.time() - 600)
    async with next_queen(queen.store, ready=False) as heir:
        gone = known(heir, late)
        assert gone.error
        assert (gone.error.code, gone.error.retriable) == (ErrorCode.DEADLINE_UNMET, False)
        left_s = known(heir, in_time).deadline - trio.current_time()
        assert 2990 < left_s <= 3000


async def test_what_this_release_cannot_read_ends_with_the_reason_and_never_with_its_prompt():
    async with killed_queen() as queen:
        queen.pool(ready=False)
        before = await queen.accept("a secret")
    stored = queen.store.tasks[before.task_id]
    queen.store.tasks[before.task_id] = replace(stored, request='{"prompt": "a secret", "from_the_future": 1}')
    async with next_queen(queen.store) as heir:
        again = known(heir, before)
        assert again.error
        assert again.error.code == ErrorCode.INTERNAL
        assert "from_the_future" in again.error.message
        assert "secret" not in repr(heir.store.documents)


async def test_tasks_keep_their_order_and_the_capacity_does_not_turn_them_away(caplog):
    async with killed_queen() as queen:
        queen.pool(ready=False)
        before = [await queen.accept(f"number {number}") for number in range(5)]
    caplog.set_level("INFO")
    async with scripted_engine() as engine:
        heir = core(engine, capacity=2, store=queen.store.after_restart())
        await restore(heir.store, heir.intake, heir.dispatcher.accounting)
    assert [task.task_id for task in heir.dispatcher.queue.order()] == [task.task_id for task in before]
    assert "5 queued again, 0 ended" in caplog.text


async def test_embeddings_are_asked_for_again_as_embeddings():
    async with killed_queen() as queen:
        queen.pool(ready=False)
        before = await queen.accept(None, workload="embedding", inputs=("one", "two"))
    async with scripted_engine() as engine:
        heir = core(engine, store=queen.store.after_restart())
        await restore(heir.store, heir.intake, heir.dispatcher.accounting)
    passage = known(heir, before).passage
    assert passage
    assert (passage.endpoint, passage.body) == ("embeddings", {"input": ["one", "two"]})
