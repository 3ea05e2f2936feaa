"""No task outlives its client: however the connection ends, the task is cancelled and its slot released."""

from functools import partial

import pytest
import trio
import trio.testing

from llama_orch.contracts.tasks import TaskRequest, TaskState
from llama_orch.http.server.exchange import ClientGone, Exchange
from queen_rbee.api.streaming import KEEP_ALIVE_S
from queen_rbee.api.v1.engine_relay import EngineRelay
from queen_rbee.api.v1.openai import OpenAiDialect
from queen_rbee.engines.passage import Passage
from queen_rbee.tasks.event_log import Frame
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import SOON_S, Queen, slots_are_free
from tests.unit.queen_rbee.line import Line, said, site

KEEP_ALIVE = b": keep-alive\n\n"


def newest(queen: Queen) -> Task:
    """Return the task that was admitted last."""
    return next(queen.dispatcher.accounting.book.newest_first())


def canceled(queen: Queen) -> dict[str, float]:
    """Return the number of cancelled tasks by reason."""
    (series,) = queen.dispatcher.metrics.canceled.collect()
    totals = [sample for sample in series.samples if sample.name.endswith("_total")]
    return {sample.labels["reason"]: sample.value for sample in totals}


async def until(condition) -> None:
    """Return once `condition` is true."""
    with trio.fail_after(SOON_S):
        while not condition():
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("words", ["silence", "stall"])
async def test_client_disconnect_cancels_running_task(words: str, stream: bool):
    async with site() as running:
        queen = running.queen
        line = running.dial(body=said(words, stream=stream))
        await until(lambda: queen.engine.connected and (words == "silence" or newest(queen).shown))
        line.left.set()
        with trio.fail_after(SOON_S):
            await line.ended.wait()
        assert newest(queen).state is TaskState.CANCELLED
        await slots_are_free(queen)


@pytest.mark.parametrize("stream", [False, True])
async def test_client_disconnect_removes_queued_task(stream: bool):
    async with site() as running:
        queen = running.queen
        queen.pool(ready=False)
        line = running.dial(body=said(stream=stream))
        await until(lambda: len(queen.dispatcher.queue))
        line.left.set()
        with trio.fail_after(SOON_S):
            await line.ended.wait()
        assert len(queen.dispatcher.queue) == 0
        assert newest(queen).state is TaskState.CANCELLED
        assert line.body == b""


@pytest.mark.parametrize("ready", [True, False], ids=["runs", "waits"])
async def test_client_disconnect_is_not_reported_as_cancel(ready: bool):
    async with site() as running:
        queen = running.queen
        queen.pool(ready=ready)
        line = running.dial(body=said("stall"))
        await until(lambda: len(queen.dispatcher.queue) or queen.engine.connected)
        line.left.set()
        with trio.fail_after(SOON_S):
            await line.ended.wait()
        task = newest(queen)
        assert task.error
        assert (task.error.code, task.error.message) == ("CANCELLED", "its client has left")
        await slots_are_free(queen)
        assert canceled(queen) == {"client_left": 1}


async def test_cancel_on_request_is_counted_as_request():
    async with site() as running:
        queen = running.queen
        line = running.dial(body=said("stall"))
        await until(lambda: queen.engine.connected)
        queen.dispatcher.cancel(newest(queen))
        with trio.fail_after(SOON_S):
            await line.ended.wait()
        await slots_are_free(queen)
        assert canceled(queen) == {"request": 1}


async def test_disconnect_before_admission_is_noticed():
    async with site() as running:
        running.queen.pool(ready=False)
        line = running.dial(body=said())
        line.left.set()
        with trio.fail_after(SOON_S):
            await line.ended.wait()
        assert len(running.queen.dispatcher.queue) == 0


async def test_server_stop_cancels_task():
    async with site() as running:
        queen = running.queen
        async with trio.open_nursery() as serving:
            running.nursery, outer = serving, running.nursery
            running.dial(body=said("stall", stream=True))
            await until(lambda: queen.engine.connected and newest(queen).shown)
            serving.cancel_scope.cancel()
        running.nursery = outer
        assert newest(queen).state is TaskState.CANCELLED
        await slots_are_free(queen)


class BrokenDialect(OpenAiDialect):
    """A dialect with a defect."""

    def piece(self, frame: Frame) -> bytes:
        raise RuntimeError("a defect")


async def test_defect_in_dialect_cancels_task():
    async with site() as running:
        relay, line = EngineRelay(running.queen.dispatcher, running.queen.intake), Line(b"{}")
        task = relay.admit(TaskRequest(), Passage("chat", said("stall"), 2))
        with pytest.RaisesGroup(RuntimeError):
            await relay.stream(exchange(line), task, BrokenDialect(wants_usage=False))
        assert task.state is TaskState.CANCELLED
        await slots_are_free(running.queen)


def exchange(line: Line) -> Exchange:
    return Exchange("POST", "/v1/chat/completions", {}, {}, {}, line.receive, line.send)


async def start_stream(queen: Queen, line: Line, nursery: trio.Nursery) -> Task:
    """Admit a task whose events the test writes itself, and start streaming to its client."""
    relay = EngineRelay(queen.dispatcher, queen.intake)
    task = relay.admit(TaskRequest(), Passage("chat", said(), 2))
    nursery.start_soon(partial(relay.stream, exchange(line), task, OpenAiDialect(wants_usage=True)))
    await trio.testing.wait_all_tasks_blocked()
    return task


async def test_stream_opens_with_first_piece_and_coalesces_later_ones(autojump_clock):
    async with site() as running, trio.open_nursery() as nursery:
        running.queen.pool(ready=False)
        line = Line(b"{}")
        task = await start_stream(running.queen, line, nursery)
        assert line.status == 0
        task.chunk('{"n":1}', 1, trio.current_time())
        await trio.testing.wait_all_tasks_blocked()
        assert (line.status, line.body) == (200, b'data: {"n":1}\n\n')
        for number in (2, 3):
            task.chunk(f'{{"n":{number}}}', 1, trio.current_time())
            await trio.testing.wait_all_tasks_blocked()
        assert b'"n":2' not in line.body
        task.end(1, 3, trio.current_time())
        await trio.sleep(1)
        assert line.chunks == [{"n": 1}, {"n": 2}, {"n": 3}, "[DONE]"]


async def test_long_wait_opens_stream_and_sends_keep_alives(autojump_clock):
    async with site() as running, trio.open_nursery() as nursery:
        running.queen.pool(ready=False)
        line = Line(b"{}")
        task = await start_stream(running.queen, line, nursery)
        await trio.sleep(KEEP_ALIVE_S - 0.5)
        assert line.status == 0
        await trio.sleep(1)
        assert (line.status, line.body) == (200, KEEP_ALIVE)
        assert "x-llama-orch-pool" not in line.headers
        await trio.sleep(2 * KEEP_ALIVE_S)
        assert line.body == 3 * KEEP_ALIVE
        running.queen.dispatcher.cancel(task)
        await trio.sleep(1)
        assert line.chunks[-1]["error"]["code"] == "CANCELLED"


async def test_keep_alive_is_due_after_silence_despite_other_events(autojump_clock):
    async with site() as running, trio.open_nursery() as nursery:
        running.queen.pool(ready=False)
        line = Line(b"{}")
        task = await start_stream(running.queen, line, nursery)
        await trio.sleep(KEEP_ALIVE_S - 5)
        task.log.append("metrics", {"queue_depth": 1})
        await trio.sleep(5.5)
        assert line.body == KEEP_ALIVE
        nursery.cancel_scope.cancel()


async def test_waiting_client_is_not_evicted_before_unread_task(autojump_clock):
    async with site(capacity=2, policy="drop-lru") as running:
        queen = running.queen
        queen.pool(ready=False)
        line = running.dial(body=said())
        await trio.testing.wait_all_tasks_blocked()
        waiting, unread = newest(queen), queen.submit("unread")
        await trio.sleep(2)
        queen.submit("third")
        assert unread.state is TaskState.FAILED
        assert waiting.state is TaskState.QUEUED
        line.left.set()


async def test_collect_raises_client_gone_after_disconnect():
    async with site() as running, trio.open_nursery() as nursery:
        relay, line, frames = EngineRelay(running.queen.dispatcher, running.queen.intake), Line(b"{}"), list[Frame]()
        task = relay.admit(TaskRequest(), Passage("chat", said("stall"), 2))

        async def collect() -> None:
            with pytest.raises(ClientGone):
                await relay.collect(exchange(line), task, frames.append)

        nursery.start_soon(collect)
        await until(lambda: frames)
        line.left.set()
