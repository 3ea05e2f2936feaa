"""Tasks that do not simply run: elsewhere after a refusal, with an error of the queen's own, or with the next queen."""

from uuid import uuid4

import pytest
import trio
import trio.testing

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskState
from queen_rbee.dispatch import relay
from queen_rbee.dispatch.runs import MOVES_MOST
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import SOON_S, Queen, core, ended, first_token, nobody_answers, running, slots_are_free
from tests.unit.queen_rbee.scripted_engine import scripted_engine

NOBODY = "http://127.0.0.1:1"


def two_pools(queen: Queen, *, second: str) -> None:
    """`a` is where round-robin begins, and nobody is there."""
    queen.dispatcher.registry.update("p", 0, [])
    pools = [queen.status(pool_id="a", url=NOBODY), queen.status(pool_id="b", url=second)]
    queen.dispatcher.registry.update("both", 0, pools)


async def broken_relay(*_arguments: object) -> None:
    raise KeyError("nobody has thought of this")


async def begun(task: Task) -> None:
    with trio.fail_after(SOON_S):
        while task.state is TaskState.QUEUED:
            await task.log.wait_beyond(task.log.last_id)


async def test_a_task_that_one_replica_refuses_before_it_began_runs_on_another():
    async with running() as queen:
        two_pools(queen, second=queen.engine.url)
        task = queen.submit()
        assert await ended(task) == ["started", "metrics", "metrics", "token", "token", "end"]
        assert (task.state, task.pool_id) == (TaskState.DONE, "b")
        await slots_are_free(queen)


@pytest.mark.parametrize("prompt", ["hello", "refuse", "hang up"])
async def test_whoever_sees_the_end_finds_the_slot_free_and_the_session_settled(prompt):
    async with running() as queen:
        task = queen.submit(prompt, session_id=uuid4())
        assert await ended(task)
        assert queen.dispatcher.registry.leased == 0
        (session,) = queen.sessions.views(trio.current_time(), 1)
        assert (session.turns, queen.sessions._open) == (1, set())


async def test_what_an_engine_says_of_a_request_reaches_its_client_and_neither_log_nor_store(caplog):
    async with running() as queen:
        task = await queen.accept("refuse")
        await ended(task)
        assert task.error
        assert "exceeds the context" in task.error.message
        (record,) = queen.store.documents["record"].values()
        assert "exceeds the context" not in record.body + caplog.text
        assert "INVALID_PARAMS" in record.body
        assert "its words, which may repeat what it was asked" in caplog.text


async def test_end_says_how_many_replicas_were_tried_and_why_in_vain():
    async with running() as queen:
        nobody_answers(queen)
        task = queen.submit()
        assert (await ended(task)).count("metrics") == 1 + MOVES_MOST
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.REPLICA_EXHAUSTED, True)
        assert "2 replicas were tried" in task.error.message
        assert "the engine broke off: the connection closed" in task.error.message
        await slots_are_free(queen)


async def test_end_on_one_replica_says_its_own_reason():
    async with running() as queen:
        task = queen.submit("vanish")
        assert (await ended(task)).count("metrics") == 1 + MOVES_MOST
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.WORKER_RESET, True)
        assert task.error.message.startswith("the engine broke off")
        await slots_are_free(queen)


async def test_task_given_up_says_what_the_last_replica_said(autojump_clock):
    async with running(pool_wait_s=30.0) as queen:
        two_pools(queen, second=NOBODY)
        task = queen.submit()
        with trio.fail_after(120):
            while not task.log.closed:
                await task.log.wait_beyond(task.log.last_id)
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.POOL_UNREADY, True)
        assert "ready for 30 s; the last replica that was tried: the engine is away" in task.error.message
        assert task.error.retry_after_ms


async def test_a_pinned_task_is_not_run_elsewhere():
    async with running() as queen:
        two_pools(queen, second=queen.engine.url)
        task = queen.submit(placement={"mode": "pin", "pin_pool_id": "a"}, deadline_ms=500)
        await ended(task)
        assert task.state is TaskState.FAILED
        assert queen.engine.served == 0
        await slots_are_free(queen)


async def test_an_error_of_the_queens_own_ends_the_one_task_that_met_it(monkeypatch):
    async with running() as queen:
        with monkeypatch.context() as broken:
            broken.setattr(relay, "run", broken_relay)
            task = queen.submit()
            await ended(task)
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.INTERNAL, False)
        assert (await ended(queen.submit()))[-1] == "end"
        await slots_are_free(queen)


async def stopped(queen: Queen) -> None:
    """Stop as the daemon does when what runs does not end in time."""
    queen.intake.close()
    with trio.move_on_after(0.01):
        await queen.dispatcher.finish()
    queen.dispatcher.abandon()
    with trio.fail_after(SOON_S):
        while queen.dispatcher.registry.leased:
            await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("delivered", [False, True])
async def test_a_stopping_queen_leaves_what_nobody_has_seen_to_the_next_one(delivered):
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = core(engine)
        queen.pool(slots=1)
        await nursery.start(queen.dispatcher.run, queen.pulse)
        runs = await queen.accept("stall")
        waits, plain = await queen.accept(), queen.submit()
        await first_token(runs)
        if delivered:
            runs.deliver()
        await stopped(queen)
        nursery.cancel_scope.cancel()
    left = {waits.task_id} if delivered else {runs.task_id, waits.task_id}
    assert set(queen.store.tasks) == left
    assert plain.error
    assert plain.error.code == ErrorCode.WORKER_RESET
    assert [task.state.final for task in (runs, waits)] == [delivered, False]
    assert all(task.log.closed for task in (runs, waits, plain)), "every stream ends"


async def test_a_stopping_queen_lets_what_runs_end():
    async with running() as queen:
        task = await queen.accept()
        await begun(task)
        with trio.fail_after(SOON_S):
            await queen.dispatcher.finish()
        assert task.state is TaskState.DONE
        assert queen.store.tasks == {}
