"""The dispatcher runs tasks on free slots and releases each slot, however the task ends."""

import json

import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import TaskRequest, TaskState
from queen_rbee.dispatch.stalls import StallLimits
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import (
    build_queen,
    end_events,
    running_queen,
    wait_for_first_token,
    wait_for_free_slots,
)
from tests.unit.queen_rbee.scripted_engine import scripted_engine


async def test_task_is_started_relayed_and_ended():
    async with running_queen() as queen:
        task = queen.submit()
        assert await end_events(task) == ["started", "metrics", "token", "token", "end"]
        assert (task.state, task.measurements.tokens_in, task.measurements.tokens_out) == (TaskState.DONE, 3, 2)
        await wait_for_free_slots(queen)


@pytest.mark.parametrize(
    ("prompt", "code", "retriable"),
    [
        ("refuse", ErrorCode.INVALID_PARAMS, False),
        ("break", ErrorCode.WORKER_RESET, True),
        ("garbage", ErrorCode.WORKER_RESET, True),
        ("hang up", ErrorCode.WORKER_RESET, True),
        ("midway", ErrorCode.WORKER_RESET, True),
        ("silence", ErrorCode.DECODE_TIMEOUT, True),
        ("stall", ErrorCode.DECODE_TIMEOUT, True),
    ],
)
async def test_engine_failure_ends_task_with_code_and_frees_slot(prompt, code, retriable):
    async with running_queen(short_limits=code is ErrorCode.DECODE_TIMEOUT) as queen:
        task = queen.submit(prompt)
        assert (await end_events(task))[-1] == "error"
        assert task.error is not None
        assert (task.error.code, task.error.retriable) == (code, retriable)
        await wait_for_free_slots(queen)


async def test_correlation_id_and_trace_reach_the_engine():
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with running_queen() as queen:
        task = queen.intake.admit(TaskRequest(prompt="hello"), "find-me", trace)
        await end_events(task)
        assert b"x-correlation-id: find-me\r\n" in queen.engine.last_request
        assert f"traceparent: {trace}\r\n".encode() in queen.engine.last_request


async def test_idle_limit_applies_after_the_first_token():
    async with running_queen() as queen:
        queen.runs.limits = StallLimits(first_token_s=60.0, idle_s=0.05)
        task = queen.submit("stall")
        await end_events(task)
        assert task.error is not None
        assert task.error.code == ErrorCode.DECODE_TIMEOUT
        await wait_for_free_slots(queen)


async def test_tasks_beyond_the_slots_wait_in_order():
    async with running_queen() as queen:
        tasks = [queen.submit() for _ in range(12)]
        for task in tasks:
            await end_events(task)
        await wait_for_free_slots(queen)
        assert queen.engine.most <= 2
        assert queen.engine.served == 12
        started = [task.measurements.started_at or 0.0 for task in tasks]
        assert started == sorted(started)


async def test_cancel_closes_stream_and_connection_of_running_task():
    async with running_queen() as queen:
        task = queen.submit("stall")
        await wait_for_first_token(task)
        queen.dispatcher.cancel(task)
        assert (await end_events(task))[-1] == "error"
        assert task.state is TaskState.CANCELLED
        await wait_for_free_slots(queen)


async def test_cancel_removes_waiting_task_from_queue():
    async with running_queen() as queen:
        queen.pool(ready=False)
        task = queen.submit()
        queen.dispatcher.cancel(task)
        assert await end_events(task) == ["started", "error"]
        assert len(queen.queue) == 0


async def test_deadline_ends_waiting_task():
    async with running_queen() as queen:
        queen.pool(ready=False)
        task = queen.submit(deadline_ms=20)
        await end_events(task)
        assert task.error is not None
        assert task.error.code == ErrorCode.DEADLINE_UNMET
        assert len(queen.queue) == 0


async def test_deadline_ends_running_task_and_frees_slot():
    async with running_queen() as queen:
        task = queen.submit("stall", deadline_ms=50)
        await end_events(task)
        assert task.error is not None
        assert task.error.code == ErrorCode.DEADLINE_UNMET
        await wait_for_free_slots(queen)


async def test_task_waits_for_a_starting_pool():
    async with running_queen() as queen:
        queen.pool(ready=False, state=PoolState.STARTING)
        task = queen.submit()
        await trio.testing.wait_all_tasks_blocked()
        assert task.state is TaskState.QUEUED
        queen.pool()
        assert (await end_events(task))[-1] == "end"


async def test_draining_pool_gets_no_task():
    async with running_queen() as queen:
        queen.pool(draining=True, state=PoolState.DRAINING)
        task = queen.submit()
        await trio.testing.wait_all_tasks_blocked()
        assert task.state is TaskState.QUEUED


async def test_full_queue_refuses_with_retry_time():
    async with running_queen(capacity=1) as queen:
        queen.pool(ready=False)
        queen.submit()
        with pytest.raises(ApiError) as refused:
            queen.submit()
        assert refused.value.status == 429
        assert refused.value.body.code is ErrorCode.ADMISSION_REJECT
        assert refused.value.body.policy_label == "reject-new"
        headers = dict(refused.value.headers)
        assert int(headers["retry-after"]) * 1000 >= int(headers["x-backoff-ms"]) >= 1


async def test_drop_lru_ends_old_task_and_admits_new_one():
    async with running_queen(capacity=1, policy="drop-lru") as queen:
        queen.pool(ready=False)
        old = queen.submit()
        new = queen.submit()
        await end_events(old)
        assert old.error is not None
        assert old.error.code == ErrorCode.QUEUE_FULL_DROP_LRU
        assert list(queen.queue.order()) == [new]


async def test_duplicate_task_id_is_refused():
    async with running_queen() as queen:
        task = queen.submit()
        with pytest.raises(ApiError) as refused:
            queen.submit(task_id=task.task_id)
        assert refused.value.status == 409
        await end_events(task)


async def test_abandon_ends_all_tasks_as_retriable():
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = build_queen(engine)
        queen.pool(slots=1)
        await nursery.start(queen.dispatcher.run, queen.pulse)
        running_task, waiting = queen.submit("stall"), queen.submit()
        await wait_for_first_token(running_task)
        queen.intake.close()
        with pytest.raises(ApiError):
            queen.submit()
        queen.dispatcher.abandon()
        for task in (running_task, waiting):  # before the loops end, so that the end can still be sent
            assert (await end_events(task))[-1] == "error"
        nursery.cancel_scope.cancel()
    for task in (running_task, waiting):
        assert task.error is not None
        assert (task.error.code, task.error.retriable) == (ErrorCode.WORKER_RESET, True)
    assert queen.registry.leased == 0


ACTIONS = st.lists(
    st.sampled_from(["plain", "stall", "hang up", "break", "cancel oldest", "cancel newest", "lose pool", "find pool"]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTIONS)
def test_no_order_of_events_loses_a_slot_or_task(actions):
    async def play() -> None:
        async with running_queen(short_limits=True) as queen:
            tasks: list[Task] = []
            for action in actions:
                if action == "lose pool":
                    queen.pool(ready=False)
                elif action == "find pool":
                    queen.pool()
                elif action.startswith("cancel"):
                    if tasks:
                        queen.dispatcher.cancel(tasks[0 if "oldest" in action else -1])
                else:
                    tasks.append(queen.submit(action))
                await trio.lowlevel.checkpoint()
            queen.pool()
            for task in tasks:
                await end_events(task)
            await wait_for_free_slots(queen)
            assert all(task.state.final for task in tasks)
            assert len(queen.queue) == 0
            counted = queen.metrics.registry.get_sample_value(
                "tasks_enqueued_total",
                {
                    "engine": "llamacpp",
                    "engine_version": "",
                    "pool_id": "p",
                    "replica_id": "",
                    "priority": "interactive",
                },
            )
            assert (counted or 0) == len(tasks)

    trio.run(play)


async def test_metrics_event_names_the_pool():
    async with running_queen() as queen:
        task = queen.submit()
        await end_events(task)
        data, _ = task.log.after(0, verbose=False)
        metrics = next(part for part in data.decode().split("\n\n") if "event: metrics" in part)
        assert json.loads(metrics.split("data: ")[1])["pool_id"] == "p"
