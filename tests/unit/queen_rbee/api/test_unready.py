"""Tasks that no pool can serve: clients get a retry time, and no task waits forever."""

import json

import pytest
import trio
import trio.testing

from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.dispatch.outages import MIN_RETRY_S
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import build_queen, end_events, running_queen
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine


def started_event(task: Task):
    frame = next(frame for frame in task.log.frames(0) if frame.event == "started")
    return json.loads(frame.payload)


@pytest.mark.parametrize("how", [{"ready": False, "state": PoolState.STARTING}, {"draining": True}])
async def test_start_is_not_predicted_without_ready_pool(how):
    queen = build_queen(ScriptedEngine())
    queen.pool(**how)
    accepted = await queen.intake.submit(TaskRequest(prompt="hello"), "c")
    task = accepted.task
    assert json.loads(accepted.body)["predicted_start_ms"] is None
    assert started_event(task) == {"queue_position": 0, "predicted_start_ms": None}
    assert queen.intake.position(task) == (0, None)
    queen.pool()
    assert queen.intake.position(task) == (0, 0)


async def test_start_is_not_predicted_with_open_circuit():
    queen = build_queen(ScriptedEngine())
    queen.pool()
    (replica,) = queen.registry.replicas.all()
    queen.circuits.record_outage(replica, trio.current_time(), "cannot connect")
    assert queen.forecast.start_ms(queen.submit().demand, 0) is None


async def test_task_fails_when_no_pool_is_ready_in_time(autojump_clock):
    async with running_queen(pool_wait_s=60.0) as queen:
        queen.pool(ready=False, state=PoolState.STARTING)
        task, dated = queen.submit(), queen.submit(deadline_ms=10_000)
        assert await ended_within(task, 100) == ErrorCode.POOL_UNREADY
        assert 60.0 <= (task.measurements.ended_at or 0) - task.measurements.submitted_at < 65.0
        assert task.error
        assert task.error.retriable
        assert (task.error.retry_after_ms or 0) >= 60_000, "at least as long as the outage has lasted"
        assert dated.error
        assert dated.error.code == ErrorCode.DEADLINE_UNMET


async def ended_within(task: Task, limit_s: float) -> str | None:
    with trio.fail_after(limit_s):
        while not task.log.closed:
            await task.log.wait_beyond(task.log.last_id)
    return task.error.code if task.error else None


async def test_task_behind_busy_slots_keeps_waiting(autojump_clock):
    async with running_queen(pool_wait_s=5.0) as queen:
        (replica,) = queen.registry.replicas.all()
        for _slot in range(2):
            await queen.registry.lease(replica.key)
        task = queen.submit()
        await trio.sleep(100)
        assert not task.state.final
        queen.registry.release(replica.key)
        assert (await end_events(task))[-1] == "end"


async def test_pool_that_becomes_ready_serves_queued_task(autojump_clock):
    async with running_queen(pool_wait_s=60.0) as queen:
        queen.pool(ready=False, state=PoolState.STARTING)
        task = queen.submit()
        await trio.sleep(50)
        queen.pool()
        assert (await end_events(task))[-1] == "end"


async def test_full_queue_without_pool_has_growing_retry_after(autojump_clock):
    async with running_queen(capacity=1) as queen:
        queen.pool(ready=False, state=PoolState.STARTING)
        queen.submit("first")
        retry_after_s = []
        for number in range(3):
            with pytest.raises(ApiError) as refused:
                queen.submit(f"task {number}")
            retry_after_s.append((refused.value.body.retry_after_ms or 0) / 1000)
            await trio.sleep(60)
        assert retry_after_s[0] == MIN_RETRY_S
        assert retry_after_s[1:] == pytest.approx([60.0, 120.0], abs=2.0)


async def test_deadline_is_not_judged_without_forecast():
    queen = build_queen(ScriptedEngine())
    queen.pool(ready=False, state=PoolState.STARTING)
    assert queen.submit(deadline_ms=100).error is None
