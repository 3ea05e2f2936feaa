"""Tasks that run elsewhere after a refusal, fail by an internal error, or are left for the next start."""

from uuid import uuid4

import pytest
import trio
import trio.testing

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskState
from queen_rbee.dispatch import relay
from queen_rbee.dispatch.runs import MAX_BREAKS
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import (
    TIMEOUT_S,
    QueenCore,
    add_vanishing_replicas,
    build_queen,
    end_events,
    running_queen,
    wait_for_first_token,
    wait_for_free_slots,
)
from tests.unit.queen_rbee.scripted_engine import scripted_engine

UNREACHABLE = "http://127.0.0.1:1"


def two_pools(queen: QueenCore, *, second: str) -> None:
    """Add pool `a`, which round-robin tries first and which is unreachable, and pool `b` at `second`."""
    queen.registry.update("p", 0, [])
    pools = [queen.status(pool_id="a", url=UNREACHABLE), queen.status(pool_id="b", url=second)]
    queen.registry.update("both", 0, pools)


async def broken_relay(*_arguments: object) -> None:
    raise KeyError("a bug")


async def wait_until_running(task: Task) -> None:
    with trio.fail_after(TIMEOUT_S):
        while task.state is TaskState.QUEUED:
            await task.log.wait_beyond(task.log.last_id)


async def test_unstarted_task_moves_to_another_replica():
    async with running_queen() as queen:
        two_pools(queen, second=queen.engine.url)
        task = queen.submit()
        assert await end_events(task) == ["started", "metrics", "metrics", "token", "token", "end"]
        assert (task.state, task.place.pool_id) == (TaskState.DONE, "b")
        await wait_for_free_slots(queen)


@pytest.mark.parametrize("prompt", ["hello", "refuse", "hang up"])
async def test_slot_and_session_are_settled_before_the_end_event(prompt):
    async with running_queen() as queen:
        task = queen.submit(prompt, session_id=uuid4())
        assert await end_events(task)
        assert queen.registry.leased == 0
        (session,) = queen.sessions.views(trio.current_time(), 1)
        assert (session.turns, queen.sessions._open) == (1, set())


async def test_engine_message_reaches_neither_log_nor_store(caplog):
    async with running_queen() as queen:
        task = await queen.accept("refuse")
        await end_events(task)
        assert task.error
        assert "exceeds the context" in task.error.message
        (record,) = queen.store.documents["record"].values()
        assert "exceeds the context" not in record.body + caplog.text
        assert "INVALID_PARAMS" in record.body
        assert "its message may repeat the prompt" in caplog.text


async def test_error_reports_replica_count_and_last_failure():
    async with running_queen() as queen:
        add_vanishing_replicas(queen)
        task = queen.submit()
        assert (await end_events(task)).count("metrics") == 1 + MAX_BREAKS
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.REPLICA_EXHAUSTED, True)
        assert "2 replicas were tried" in task.error.message
        assert "the engine broke off: the connection closed" in task.error.message
        await wait_for_free_slots(queen)


async def test_error_of_single_replica_is_its_own():
    async with running_queen() as queen:
        task = queen.submit("vanish")
        assert (await end_events(task)).count("metrics") == 1 + MAX_BREAKS
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.WORKER_RESET, True)
        assert task.error.message.startswith("the engine broke off")
        await wait_for_free_slots(queen)


async def test_unserved_task_reports_the_last_failure(autojump_clock):
    async with running_queen(pool_wait_s=30.0) as queen:
        two_pools(queen, second=UNREACHABLE)
        task = queen.submit()
        with trio.fail_after(120):
            while not task.log.closed:
                await task.log.wait_beyond(task.log.last_id)
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.POOL_UNREADY, True)
        assert "ready for 30 s; the last replica that was tried: the engine is unreachable" in task.error.message
        assert task.error.retry_after_ms


async def test_pinned_task_does_not_move():
    async with running_queen() as queen:
        two_pools(queen, second=queen.engine.url)
        task = queen.submit(placement={"mode": "pin", "pin_pool_id": "a"}, deadline_ms=500)
        await end_events(task)
        assert task.state is TaskState.FAILED
        assert queen.engine.served == 0
        await wait_for_free_slots(queen)


async def test_internal_error_ends_only_its_task(monkeypatch):
    async with running_queen() as queen:
        with monkeypatch.context() as broken:
            broken.setattr(relay, "run", broken_relay)
            task = queen.submit()
            await end_events(task)
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.INTERNAL, False)
        assert (await end_events(queen.submit()))[-1] == "end"
        await wait_for_free_slots(queen)


async def stop(queen: QueenCore) -> None:
    """Stop as the daemon does when running tasks do not end in time."""
    queen.intake.close()
    with trio.move_on_after(0.01):
        await queen.dispatcher.finish()
    queen.dispatcher.abandon()
    with trio.fail_after(TIMEOUT_S):
        while queen.registry.leased:
            await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("delivered", [False, True])
async def test_stop_leaves_undelivered_tasks_in_the_store(delivered):
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = build_queen(engine)
        queen.pool(slots=1)
        await nursery.start(queen.dispatcher.run, queen.pulse)
        runs = await queen.accept("stall")
        waits, plain = await queen.accept(), queen.submit()
        await wait_for_first_token(runs)
        if delivered:
            runs.deliver()
        await stop(queen)
        nursery.cancel_scope.cancel()
    left = {waits.task_id} if delivered else {runs.task_id, waits.task_id}
    assert set(queen.store.tasks) == left
    assert plain.error
    assert plain.error.code == ErrorCode.WORKER_RESET
    assert [task.state.final for task in (runs, waits)] == [delivered, False]
    assert all(task.log.closed for task in (runs, waits, plain)), "a stream is still open"


async def test_stop_waits_for_running_tasks():
    async with running_queen() as queen:
        task = await queen.accept()
        await wait_until_running(task)
        with trio.fail_after(TIMEOUT_S):
            await queen.dispatcher.finish()
        assert task.state is TaskState.DONE
        assert queen.store.tasks == {}
