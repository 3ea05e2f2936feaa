"""No task outlives its client: however the connection ends, the task is cancelled and its slot released."""

from functools import partial

import pytest
import trio
import trio.testing

from llama_orch.contracts.tasks import TaskRequest, TaskState
from llama_orch.engines.wire.passage import Passage
from llama_orch.http.server.exchange import ClientGone, Exchange, Message
from queen_rbee.api.streaming import KEEP_ALIVE_S
from queen_rbee.api.v1.engine_relay import EngineRelay
from queen_rbee.api.v1.openai import OpenAiDialect
from queen_rbee.tasks.direct_answer import DirectAnswer
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import TIMEOUT_S, QueenCore, wait_for_free_slots
from tests.unit.queen_rbee.v1_client import V1Exchange, chat_body, v1_server

KEEP_ALIVE = b": keep-alive\n\n"


def newest(queen: QueenCore) -> Task:
    """Return the task that was admitted last."""
    return next(queen.book.newest_first())


def canceled(queen: QueenCore) -> dict[str, float]:
    """Return the number of cancelled tasks by reason."""
    (series,) = queen.metrics.canceled.collect()
    totals = [sample for sample in series.samples if sample.name.endswith("_total")]
    return {sample.labels["reason"]: sample.value for sample in totals}


async def until(condition) -> None:
    """Return once `condition` is true."""
    with trio.fail_after(TIMEOUT_S):
        while not condition():
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("words", ["silence", "stall"])
async def test_client_disconnect_cancels_running_task(words: str, stream: bool):
    async with v1_server() as running:
        queen = running.queen
        line = running.start(body=chat_body(words, stream=stream))
        await until(lambda: queen.engine.connected and (words == "silence" or newest(queen).answer_started))
        line.disconnect.set()
        with trio.fail_after(TIMEOUT_S):
            await line.finished.wait()
        assert newest(queen).state is TaskState.CANCELLED
        await wait_for_free_slots(queen)


@pytest.mark.parametrize("stream", [False, True])
async def test_client_disconnect_removes_queued_task(stream: bool):
    async with v1_server() as running:
        queen = running.queen
        queen.pool(ready=False)
        line = running.start(body=chat_body(stream=stream))
        await until(lambda: len(queen.queue))
        line.disconnect.set()
        with trio.fail_after(TIMEOUT_S):
            await line.finished.wait()
        assert len(queen.queue) == 0
        assert newest(queen).state is TaskState.CANCELLED
        assert line.body == b""


@pytest.mark.parametrize("ready", [True, False], ids=["runs", "waits"])
async def test_client_disconnect_is_not_reported_as_cancel(ready: bool):
    async with v1_server() as running:
        queen = running.queen
        queen.pool(ready=ready)
        line = running.start(body=chat_body("stall"))
        await until(lambda: len(queen.queue) or queen.engine.connected)
        line.disconnect.set()
        with trio.fail_after(TIMEOUT_S):
            await line.finished.wait()
        task = newest(queen)
        assert task.error
        assert (task.error.code, task.error.message) == ("CANCELLED", "its client has left")
        await wait_for_free_slots(queen)
        assert canceled(queen) == {"client_left": 1}


async def test_cancel_on_request_is_counted_as_request():
    async with v1_server() as running:
        queen = running.queen
        line = running.start(body=chat_body("stall"))
        await until(lambda: queen.engine.connected)
        queen.dispatcher.cancel(newest(queen))
        with trio.fail_after(TIMEOUT_S):
            await line.finished.wait()
        await wait_for_free_slots(queen)
        assert canceled(queen) == {"request": 1}


async def test_disconnect_before_admission_is_noticed():
    async with v1_server() as running:
        running.queen.pool(ready=False)
        line = running.start(body=chat_body())
        line.disconnect.set()
        with trio.fail_after(TIMEOUT_S):
            await line.finished.wait()
        assert len(running.queen.queue) == 0


async def test_server_stop_cancels_task():
    async with v1_server() as running:
        queen = running.queen
        async with trio.open_nursery() as serving:
            running.nursery, outer = serving, running.nursery
            running.start(body=chat_body("stall", stream=True))
            await until(lambda: queen.engine.connected and newest(queen).answer_started)
            serving.cancel_scope.cancel()
        running.nursery = outer
        assert newest(queen).state is TaskState.CANCELLED
        await wait_for_free_slots(queen)


class BrokenDialect(OpenAiDialect):
    """A dialect with a defect."""

    def piece(self, event: str, data: str) -> bytes:
        raise RuntimeError("a defect")


async def test_defect_in_dialect_cancels_task():
    async with v1_server() as running:
        relay, line = relay_of(running.queen), V1Exchange(b"{}")
        task = relay.admit(TaskRequest(), Passage("chat", chat_body("stall"), 2))
        with pytest.RaisesGroup(RuntimeError):
            await relay.stream(exchange(line), task, BrokenDialect(wants_usage=False))
        assert task.state is TaskState.CANCELLED
        await wait_for_free_slots(running.queen)


def relay_of(queen: QueenCore) -> EngineRelay:
    return EngineRelay(queen.intake, queen.dispatcher, queen.queue, queen.registry)


def exchange(line: V1Exchange) -> Exchange:
    return Exchange("POST", "/v1/chat/completions", {}, {}, {}, line.receive, line.send)


async def start_stream(queen: QueenCore, line: V1Exchange, nursery: trio.Nursery) -> Task:
    """Admit a task whose events the test writes itself, and start streaming to its client."""
    relay = relay_of(queen)
    task = relay.admit(TaskRequest(), Passage("chat", chat_body(), 2))
    nursery.start_soon(partial(relay.stream, exchange(line), task, OpenAiDialect(wants_usage=True)))
    await trio.testing.wait_all_tasks_blocked()
    return task


async def test_stream_opens_with_first_flush_of_a_piece(autojump_clock):
    async with v1_server() as running, trio.open_nursery() as nursery:
        running.queen.pool(ready=False)
        line = V1Exchange(b"{}")
        task = await start_stream(running.queen, line, nursery)
        assert line.status == 0
        assert task.answer
        task.chunk('{"n":1}', 1, trio.current_time())
        await task.answer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert (line.status, line.body) == (200, b'data: {"n":1}\n\n')
        for number in (2, 3):
            task.chunk(f'{{"n":{number}}}', 1, trio.current_time())
        assert b'"n":2' not in line.body
        await task.answer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert line.body.endswith(b'data: {"n":2}\n\ndata: {"n":3}\n\n')
        task.end(1, 3, trio.current_time())
        await trio.sleep(1)
        assert line.chunks == [{"n": 1}, {"n": 2}, {"n": 3}, "[DONE]"]


async def test_long_wait_opens_stream_and_sends_keep_alives(autojump_clock):
    async with v1_server() as running, trio.open_nursery() as nursery:
        running.queen.pool(ready=False)
        line = V1Exchange(b"{}")
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
    async with v1_server() as running, trio.open_nursery() as nursery:
        running.queen.pool(ready=False)
        line = V1Exchange(b"{}")
        task = await start_stream(running.queen, line, nursery)
        await trio.sleep(KEEP_ALIVE_S - 5)
        task.log.append("metrics", {"queue_depth": 1})
        await trio.sleep(5.5)
        assert line.body == KEEP_ALIVE
        nursery.cancel_scope.cancel()


async def test_waiting_client_is_not_evicted_before_unread_task(autojump_clock):
    async with v1_server(capacity=2, policy="drop-lru") as running:
        queen = running.queen
        queen.pool(ready=False)
        line = running.start(body=chat_body())
        await trio.testing.wait_all_tasks_blocked()
        waiting, unread = newest(queen), queen.submit("unread")
        await trio.sleep(2)
        queen.submit("third")
        assert unread.state is TaskState.FAILED
        assert waiting.state is TaskState.QUEUED
        line.disconnect.set()


async def test_collect_raises_client_gone_after_disconnect():
    async with v1_server() as running, trio.open_nursery() as nursery:
        relay, line, pieces = relay_of(running.queen), V1Exchange(b"{}"), list[str]()
        task = relay.admit(TaskRequest(), Passage("chat", chat_body("stall"), 2))

        async def collect() -> None:
            with pytest.raises(ClientGone):
                await relay.collect(exchange(line), task, lambda _event, data: pieces.append(data))

        nursery.start_soon(collect)
        await until(lambda: pieces)
        line.disconnect.set()


class SlowClient(V1Exchange):
    """A client that reads nothing before `reads` is set."""

    reads: trio.Event

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await self.reads.wait()
        await super().send(message)


async def test_slow_client_holds_no_slot_and_loses_nothing():
    async with v1_server() as running, trio.open_nursery() as nursery:
        relay, line = relay_of(running.queen), SlowClient(b"{}")
        line.reads = trio.Event()
        task = relay.admit(TaskRequest(), Passage("chat", chat_body(), 2))
        nursery.start_soon(partial(relay.stream, exchange(line), task, OpenAiDialect(wants_usage=False)))
        await until(lambda: task.state is TaskState.DONE)
        assert running.queen.registry.leased == 0
        assert line.body == b""
        line.reads.set()
        await line.wait_for(b"[DONE]")
        quick = await running.ask(body=chat_body(stream=True))
        assert [chunk for chunk in line.chunks if chunk != "[DONE]"]
        assert len(line.chunks) == len(quick.chunks)


@pytest.mark.parametrize("stream", [False, True])
async def test_ended_task_keeps_nothing_of_its_answer(stream: bool):
    async with v1_server() as running:
        await running.ask(body=chat_body(stream=stream))
        answer, unused = newest(running.queen).answer, DirectAnswer()
        assert answer
        assert (answer.take, answer.flush) == (unused.take, unused.flush)


async def test_v1_task_can_be_followed_by_its_id():
    async with v1_server() as running:
        await running.ask(body=chat_body(stream=True))
        path = f"/v2/tasks/{newest(running.queen).task_id}/events"
        events = await running.ask(path, method="GET")
        names = [line[7:] for line in events.body.decode().split("\n") if line.startswith("event: ")]
        assert names == ["started", "metrics", "end"]
