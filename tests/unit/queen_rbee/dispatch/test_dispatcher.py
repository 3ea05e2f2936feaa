"""The dispatcher runs tasks on free slots and gives each slot back, however a task ends."""

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
from queen_rbee.dispatch.silence import Limits
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import core, ended, first_token, running, slots_are_free
from tests.unit.queen_rbee.scripted_engine import scripted_engine


async def test_a_task_is_started_relayed_and_ended():
    async with running() as queen:
        task = queen.submit()
        assert await ended(task) == ["started", "metrics", "token", "token", "end"]
        assert (task.state, task.tokens_in, task.tokens_out) == (TaskState.DONE, 3, 2)
        await slots_are_free(queen)


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
async def test_whatever_an_engine_does_the_client_gets_a_typed_end_and_the_slot_is_free(prompt, code, retriable):
    async with running(hasty=code is ErrorCode.DECODE_TIMEOUT) as queen:
        task = queen.submit(prompt)
        assert (await ended(task))[-1] == "error"
        assert task.error is not None
        assert (task.error.code, task.error.retriable) == (code, retriable)
        await slots_are_free(queen)


async def test_the_callers_correlation_id_and_trace_are_passed_on_to_the_engine():
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with running() as queen:
        task = queen.intake.admit(TaskRequest(prompt="hello"), "find-me", trace)
        await ended(task)
        assert b"x-correlation-id: find-me\r\n" in queen.engine.asked
        assert f"traceparent: {trace}\r\n".encode() in queen.engine.asked


async def test_an_engine_that_stalls_after_a_token_is_given_the_idle_limit_and_not_that_of_the_first_token():
    async with running() as queen:
        queen.dispatcher.runs.limits = Limits(first_token_s=60.0, idle_s=0.05)
        task = queen.submit("stall")
        await ended(task)
        assert task.error is not None
        assert task.error.code == ErrorCode.DECODE_TIMEOUT
        await slots_are_free(queen)


async def test_never_more_tasks_run_than_there_are_slots_and_the_rest_waits_its_turn():
    async with running() as queen:
        tasks = [queen.submit() for _ in range(12)]
        for task in tasks:
            await ended(task)
        await slots_are_free(queen)
        assert queen.engine.most <= 2
        assert queen.engine.served == 12
        started = [task.started_at or 0.0 for task in tasks]
        assert started == sorted(started)


async def test_cancelling_a_running_task_ends_its_stream_and_its_connection():
    async with running() as queen:
        task = queen.submit("stall")
        await first_token(task)
        queen.dispatcher.cancel(task)
        assert (await ended(task))[-1] == "error"
        assert task.state is TaskState.CANCELLED
        await slots_are_free(queen)


async def test_cancelling_a_waiting_task_takes_it_out_of_the_queue():
    async with running() as queen:
        queen.pool(ready=False)
        task = queen.submit()
        queen.dispatcher.cancel(task)
        assert await ended(task) == ["started", "error"]
        assert len(queen.dispatcher.queue) == 0


async def test_a_waiting_task_whose_deadline_passes_is_ended():
    async with running() as queen:
        queen.pool(ready=False)
        task = queen.submit(deadline_ms=20)
        await ended(task)
        assert task.error is not None
        assert task.error.code == ErrorCode.DEADLINE_UNMET
        assert len(queen.dispatcher.queue) == 0


async def test_a_running_task_whose_deadline_passes_is_ended_and_its_slot_is_free():
    async with running() as queen:
        task = queen.submit("stall", deadline_ms=50)
        await ended(task)
        assert task.error is not None
        assert task.error.code == ErrorCode.DEADLINE_UNMET
        await slots_are_free(queen)


async def test_a_task_waits_for_a_pool_that_starts_and_runs_as_soon_as_it_is_ready():
    async with running() as queen:
        queen.pool(ready=False, state=PoolState.STARTING)
        task = queen.submit()
        await trio.testing.wait_all_tasks_blocked()
        assert task.state is TaskState.QUEUED
        queen.pool()
        assert (await ended(task))[-1] == "end"


async def test_a_draining_pool_gets_nothing():
    async with running() as queen:
        queen.pool(draining=True, state=PoolState.DRAINING)
        task = queen.submit()
        await trio.testing.wait_all_tasks_blocked()
        assert task.state is TaskState.QUEUED


async def test_a_full_queue_refuses_with_a_measured_time_to_come_back():
    async with running(capacity=1) as queen:
        queen.pool(ready=False)
        queen.submit()
        with pytest.raises(ApiError) as refused:
            queen.submit()
        assert refused.value.status == 429
        assert refused.value.body.code is ErrorCode.ADMISSION_REJECT
        assert refused.value.body.policy_label == "reject-new"
        headers = dict(refused.value.headers)
        assert int(headers["retry-after"]) * 1000 >= int(headers["x-backoff-ms"]) >= 1


async def test_drop_lru_ends_the_dropped_tasks_stream_and_admits_the_new_one():
    async with running(capacity=1, policy="drop-lru") as queen:
        queen.pool(ready=False)
        old = queen.submit()
        new = queen.submit()
        await ended(old)
        assert old.error is not None
        assert old.error.code == ErrorCode.QUEUE_FULL_DROP_LRU
        assert list(queen.dispatcher.queue.order()) == [new]


async def test_a_task_id_is_taken_once():
    async with running() as queen:
        task = queen.submit()
        with pytest.raises(ApiError) as refused:
            queen.submit(task_id=task.task_id)
        assert refused.value.status == 409
        await ended(task)


async def test_stopping_ends_what_runs_and_what_waits_and_says_that_it_may_come_again():
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = core(engine)
        queen.pool(slots=1)
        await nursery.start(queen.dispatcher.run, queen.pulse)
        running_task, waiting = queen.submit("stall"), queen.submit()
        await first_token(running_task)
        queen.intake.close()
        with pytest.raises(ApiError):
            queen.submit()
        queen.dispatcher.abandon()
        for task in (running_task, waiting):  # before the loops end: somebody must still be there to send it
            assert (await ended(task))[-1] == "error"
        nursery.cancel_scope.cancel()
    for task in (running_task, waiting):
        assert task.error is not None
        assert (task.error.code, task.error.retriable) == (ErrorCode.WORKER_RESET, True)
    assert queen.dispatcher.registry.leased == 0


DEEDS = st.lists(
    st.sampled_from(["plain", "stall", "hang up", "break", "cancel oldest", "cancel newest", "lose pool", "find pool"]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DEEDS)
def test_no_order_of_submit_cancel_failure_and_loss_loses_a_slot_a_task_or_a_count(deeds):
    async def play() -> None:
        async with running(hasty=True) as queen:
            tasks: list[Task] = []
            for deed in deeds:
                if deed == "lose pool":
                    queen.pool(ready=False)
                elif deed == "find pool":
                    queen.pool()
                elif deed.startswith("cancel"):
                    if tasks:
                        queen.dispatcher.cancel(tasks[0 if "oldest" in deed else -1])
                else:
                    tasks.append(queen.submit(deed))
                await trio.lowlevel.checkpoint()
            queen.pool()
            for task in tasks:
                await ended(task)
            await slots_are_free(queen)
            assert all(task.state.final for task in tasks)
            assert len(queen.dispatcher.queue) == 0
            counted = queen.dispatcher.metrics.registry.get_sample_value(
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


async def test_the_metrics_event_is_json_that_names_the_pool():
    async with running() as queen:
        task = queen.submit()
        await ended(task)
        data, _ = task.log.after(0, verbose=False)
        metrics = next(part for part in data.decode().split("\n\n") if "event: metrics" in part)
        assert json.loads(metrics.split("data: ")[1])["pool_id"] == "p"
