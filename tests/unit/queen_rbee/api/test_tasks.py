"""Tasks over HTTP: submitted, streamed to any number of readers, and cancelled."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest
import trio
import trio.testing

from llama_orch.contracts.tasks import TaskState
from queen_rbee.api.streaming import KEEP_ALIVE_S
from queen_rbee.dispatch.health_checks import TIMEOUT_S
from queen_rbee.store.protocol import StoreFailure
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import (
    QueenCore,
    build_queen,
    end_events,
    running_queen,
    wait_for_first_token,
    wait_for_free_slots,
)
from tests.unit.queen_rbee.scripted_engine import scripted_engine
from tests.unit.queen_rbee.scripted_openai import ScriptedOpenAi
from tests.unit.queen_rbee.v1_client import V1Exchange, V1Server, build_gate

TASKS = "/v2/tasks"


@asynccontextmanager
async def served(**options) -> AsyncIterator[V1Server]:
    """Serve the routes over a running dispatcher."""
    async with running_queen(**options) as queen, trio.open_nursery() as nursery:
        yield V1Server(queen, ScriptedOpenAi(), nursery, build_gate(queen))
        nursery.cancel_scope.cancel()


def task_of(queen: QueenCore, answer: V1Exchange) -> Task:
    task = queen.book.get(UUID(answer.json["task_id"]))
    assert task
    return task


def events(line: V1Exchange) -> list[tuple[int, str]]:
    """Return id and name of each event, without keep-alives."""
    found = []
    for frame in line.body.decode().split("\n\n"):
        if frame.startswith("id: "):
            number, event, _data = frame.split("\n", 2)
            found.append((int(number[4:]), event[7:]))
    return found


def names(line: V1Exchange) -> list[str]:
    return [event for _number, event in events(line)]


async def submit(served: V1Server, prompt: str = "hello", **request) -> Task:
    answer = await served.ask(TASKS, {"prompt": prompt, **request})
    assert answer.status == 202, answer.body
    return task_of(served.queen, answer)


def path(task: Task) -> str:
    return f"{TASKS}/{task.task_id}/events"


async def test_accepted_task_has_position_and_events_path():
    async with served() as site:
        site.queen.pool(ready=False)
        await submit(site)
        answer = await site.ask(TASKS, {"prompt": "hello"})
        assert (answer.status, answer.headers["x-queue-position"]) == (202, "1")
        assert answer.json["queue_position"] == 1
        assert answer.json["streams"]["sse"] == path(task_of(site.queen, answer))
        assert len(site.queen.store.tasks) == 2


@pytest.mark.parametrize(
    ("body", "field_"),
    [({"prompt": ""}, "prompt"), ({"promt": "x"}, "promt"), ({"prompt": "x", "ctx": 0}, "ctx"), (b"{", "body")],
)
async def test_wrong_body_names_the_field_and_creates_no_task(body, field_):
    async with served() as site:
        answer = await site.ask(TASKS, body)
        assert (answer.status, answer.json["code"]) == (400, "INVALID_PARAMS")
        assert field_ in answer.json["message"]
        assert len(site.queen.book) == 0


async def test_events_come_once_in_order_and_end():
    async with served() as site:
        task = await submit(site)
        answer = await site.ask(path(task), method="GET")
        assert names(answer) == ["started", "metrics", "token", "token", "end"]
        numbers = [number for number, _ in events(answer)]
        assert numbers == sorted(set(numbers))


async def test_reader_resumes_after_last_event_id():
    async with served() as site:
        task = await submit(site)
        whole = await site.ask(path(task), method="GET")
        for number, _name in events(whole):
            rest = await site.ask(path(task), method="GET", last_event_id=str(number))
            assert events(rest) == [event for event in events(whole) if event[0] > number]


@pytest.mark.parametrize("last_id", ["", "none", "-1", "9" * 30, "²"])
async def test_invalid_last_event_id_starts_from_the_beginning(last_id):
    async with served() as site:
        task = await submit(site)
        assert names(await site.ask(path(task), method="GET", last_event_id=last_id))[0] == "started"


async def test_unknown_task_is_404():
    async with served() as site:
        for method, what in (("GET", "events"), ("POST", "cancel")):
            for name in (UUID(int=1), "nonsense"):
                answer = await site.ask(f"{TASKS}/{name}/{what}", method=method)
                assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


async def test_disconnect_keeps_task_running_and_events_readable():
    async with served() as site:
        task = await submit(site, "stall")
        line = site.start(path(task), method="GET")
        await line.wait_for(b"event: token")
        line.disconnect.set()
        await line.finished.wait()
        assert task.state is TaskState.RUNNING
        assert (task.log.readers, task.log.closed) == (0, False)
        await site.ask(f"{TASKS}/{task.task_id}/cancel")
        assert names(await site.ask(path(task), method="GET"))[-1] == "error"


async def test_after_cancel_readers_get_the_end_and_no_more_tokens():
    async with served() as site:
        task = await submit(site, "stall")
        readers = [site.start(path(task), method="GET") for _ in range(3)]
        for line in readers:
            await line.wait_for(b"event: token")
        for _ in range(2):
            assert (await site.ask(f"{TASKS}/{task.task_id}/cancel")).status == 204
        for line in readers:
            await line.finished.wait()
            assert names(line)[-2:] == ["token", "error"]
        await wait_for_free_slots(site.queen)


async def test_store_records_delivery_before_reader_gets_token():
    async with served() as site:
        task = await submit(site, "stall")
        await wait_for_first_token(task)
        assert not site.queen.store.tasks[task.task_id].delivered
        line = site.start(path(task), method="GET")
        await line.wait_for(b"event: token")
        assert site.queen.store.tasks[task.task_id].delivered


@dataclass
class SlowLine(V1Exchange):
    """A client that reads nothing until `reads` is set."""

    reads: trio.Event = field(default_factory=trio.Event)

    async def send(self, message) -> None:
        await self.reads.wait()
        await super().send(message)


async def test_slow_reader_delays_nobody_and_gets_everything():
    async with served() as site:
        task = await submit(site)
        slow = SlowLine(b"")
        site.nursery.start_soon(site._exchange, slow, "GET", path(task), {})
        await trio.testing.wait_all_tasks_blocked()
        quick = await site.ask(path(task), method="GET")
        assert names(quick)[-1] == "end"
        await wait_for_free_slots(site.queen)
        slow.reads.set()
        with trio.fail_after(TIMEOUT_S):
            await slow.finished.wait()
        assert slow.body == quick.body


async def test_silent_stream_gets_keep_alives(autojump_clock):
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = build_queen(engine)
        queen.pool(ready=False)
        site = V1Server(queen, ScriptedOpenAi(), nursery, build_gate(queen))
        task = await submit(site)
        line = site.start(path(task), method="GET")
        await trio.sleep(3 * KEEP_ALIVE_S + 1)
        assert line.body.count(b": keep-alive\n\n") == 3
        assert names(line) == ["started"]
        assert line.headers["x-queue-position"] == "0"
        nursery.cancel_scope.cancel()


async def test_read_task_is_not_evicted_by_drop_lru(autojump_clock):
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = build_queen(engine, capacity=2, policy="drop-lru")
        queen.pool(ready=False)
        site = V1Server(queen, ScriptedOpenAi(), nursery, build_gate(queen))
        read, unread = await submit(site), await submit(site)
        site.start(path(read), method="GET")
        await trio.sleep(2)
        await submit(site)
        assert (read.state, unread.state) == (TaskState.QUEUED, TaskState.FAILED)
        nursery.cancel_scope.cancel()


async def test_stream_has_pool_and_overhead_headers():
    async with served() as site:
        task = await submit(site)
        await end_events(task)
        answer = await site.ask(path(task), method="GET")
        assert answer.headers["x-llama-orch-pool"] == "p"
        assert float(answer.headers["x-llama-orch-overhead-ms"]) >= 0


async def test_store_failure_is_retriable_503():
    async with served() as site:
        site.queen.store.failure = StoreFailure("the disk is full", "Make room.")
        answer = await site.ask(TASKS, {"prompt": "hello"})
        assert (answer.status, answer.json["retriable"], answer.json["hint"]) == (503, True, "Make room.")
        assert json.loads(answer.body)["message"] == "the disk is full"


@pytest.mark.parametrize(("query", "told"), [("?verbose=true", True), ("?verbose=0", False), ("", False)])
async def test_narration_is_sent_on_request(query: str, told: bool):
    async with served() as site:
        task = await submit(site)
        await end_events(task)
        answer = await site.ask(path(task) + query, method="GET")
        assert ("narration" in names(answer)) == told


async def test_invalid_verbose_is_refused():
    async with served() as site:
        task = await submit(site)
        answer = await site.ask(path(task) + "?verbose=yes", method="GET")
        assert (answer.status, answer.json["fields"][0]["field"]) == (400, "verbose")
