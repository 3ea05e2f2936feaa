"""Tasks over HTTP: accepted, read by anybody at any pace and from any point, cancelled without a word after it."""

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
from queen_rbee.store.protocol import StoreFailure
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import (
    TIMEOUT_S,
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
async def desk(**options) -> AsyncIterator[V1Server]:
    """The routes over a queen that dispatches."""
    async with running_queen(**options) as queen, trio.open_nursery() as nursery:
        yield V1Server(queen, ScriptedOpenAi(), nursery, build_gate(queen))
        nursery.cancel_scope.cancel()


def known(queen: QueenCore, answer: V1Exchange) -> Task:
    task = queen.book.get(UUID(answer.json["task_id"]))
    assert task
    return task


def events(line: V1Exchange) -> list[tuple[int, str]]:
    """Ids and names of what a reader got, keep-alives left out."""
    found = []
    for frame in line.body.decode().split("\n\n"):
        if frame.startswith("id: "):
            number, event, _data = frame.split("\n", 2)
            found.append((int(number[4:]), event[7:]))
    return found


def names(line: V1Exchange) -> list[str]:
    return [event for _number, event in events(line)]


async def submitted(desk: V1Server, prompt: str = "hello", **request) -> Task:
    answer = await desk.ask(TASKS, {"prompt": prompt, **request})
    assert answer.status == 202, answer.body
    return known(desk.queen, answer)


def path(task: Task) -> str:
    return f"{TASKS}/{task.task_id}/events"


async def test_a_task_is_accepted_with_its_place_and_the_path_of_its_events():
    async with desk() as site:
        site.queen.pool(ready=False)
        await submitted(site)
        answer = await site.ask(TASKS, {"prompt": "hello"})
        assert (answer.status, answer.headers["x-queue-position"]) == (202, "1")
        assert answer.json["queue_position"] == 1
        assert answer.json["streams"]["sse"] == path(known(site.queen, answer))
        assert len(site.queen.store.tasks) == 2


@pytest.mark.parametrize(
    ("body", "field_"),
    [({"prompt": ""}, "prompt"), ({"promt": "x"}, "promt"), ({"prompt": "x", "ctx": 0}, "ctx"), (b"{", "body")],
)
async def test_a_body_that_is_wrong_names_the_field_and_leaves_nothing(body, field_):
    async with desk() as site:
        answer = await site.ask(TASKS, body)
        assert (answer.status, answer.json["code"]) == (400, "INVALID_PARAMS")
        assert field_ in answer.json["message"]
        assert len(site.queen.book) == 0


async def test_the_events_of_a_task_come_once_in_order_and_end():
    async with desk() as site:
        task = await submitted(site)
        answer = await site.ask(path(task), method="GET")
        assert names(answer) == ["started", "metrics", "token", "token", "end"]
        numbers = [number for number, _ in events(answer)]
        assert numbers == sorted(set(numbers))


async def test_a_reader_that_comes_back_goes_on_behind_what_it_has():
    async with desk() as site:
        task = await submitted(site)
        whole = await site.ask(path(task), method="GET")
        for number, _name in events(whole):
            rest = await site.ask(path(task), method="GET", last_event_id=str(number))
            assert events(rest) == [event for event in events(whole) if event[0] > number]


@pytest.mark.parametrize("last_id", ["", "none", "-1", "9" * 30, "²"])
async def test_an_id_that_is_none_means_from_the_start(last_id):
    async with desk() as site:
        task = await submitted(site)
        assert names(await site.ask(path(task), method="GET", last_event_id=last_id))[0] == "started"


async def test_a_task_that_nobody_knows_has_no_events_and_cannot_be_cancelled():
    async with desk() as site:
        for method, what in (("GET", "events"), ("POST", "cancel")):
            for name in (UUID(int=1), "nonsense"):
                answer = await site.ask(f"{TASKS}/{name}/{what}", method=method)
                assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


async def test_leaving_a_stream_leaves_the_task_alone_and_what_was_missed_can_be_read():
    async with desk() as site:
        task = await submitted(site, "stall")
        line = site.start(path(task), method="GET")
        await line.wait_for(b"event: token")
        line.disconnect.set()
        await line.finished.wait()
        assert task.state is TaskState.RUNNING
        assert (task.log.readers, task.log.closed) == (0, False)
        await site.ask(f"{TASKS}/{task.task_id}/cancel")
        assert names(await site.ask(path(task), method="GET"))[-1] == "error"


async def test_after_a_cancel_every_reader_gets_the_end_and_not_one_token_more():
    async with desk() as site:
        task = await submitted(site, "stall")
        readers = [site.start(path(task), method="GET") for _ in range(3)]
        for line in readers:
            await line.wait_for(b"event: token")
        for _ in range(2):
            assert (await site.ask(f"{TASKS}/{task.task_id}/cancel")).status == 204
        for line in readers:
            await line.finished.wait()
            assert names(line)[-2:] == ["token", "error"]
        await wait_for_free_slots(site.queen)


async def test_the_store_hears_of_the_first_token_before_its_reader_does():
    async with desk() as site:
        task = await submitted(site, "stall")
        await wait_for_first_token(task)
        assert not site.queen.store.tasks[task.task_id].delivered
        line = site.start(path(task), method="GET")
        await line.wait_for(b"event: token")
        assert site.queen.store.tasks[task.task_id].delivered


@dataclass
class Stuck(V1Exchange):
    """A client that reads nothing until it is told to."""

    reads: trio.Event = field(default_factory=trio.Event)

    async def send(self, message) -> None:
        await self.reads.wait()
        await super().send(message)


async def test_a_reader_that_reads_nothing_holds_up_nobody_and_gets_everything_when_it_does():
    async with desk() as site:
        task = await submitted(site)
        stuck = Stuck(b"")
        site.nursery.start_soon(site._exchange, stuck, "GET", path(task), {})
        await trio.testing.wait_all_tasks_blocked()
        quick = await site.ask(path(task), method="GET")
        assert names(quick)[-1] == "end"
        await wait_for_free_slots(site.queen)
        stuck.reads.set()
        with trio.fail_after(TIMEOUT_S):
            await stuck.finished.wait()
        assert stuck.body == quick.body


async def test_while_nothing_comes_the_connection_is_kept_alive(autojump_clock):
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = build_queen(engine)
        queen.pool(ready=False)
        site = V1Server(queen, ScriptedOpenAi(), nursery, build_gate(queen))
        task = await submitted(site)
        line = site.start(path(task), method="GET")
        await trio.sleep(3 * KEEP_ALIVE_S + 1)
        assert line.body.count(b": keep-alive\n\n") == 3
        assert names(line) == ["started"]
        assert line.headers["x-queue-position"] == "0"
        nursery.cancel_scope.cancel()


async def test_a_task_that_is_read_is_not_the_one_that_drop_lru_drops(autojump_clock):
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = build_queen(engine, capacity=2, policy="drop-lru")
        queen.pool(ready=False)
        site = V1Server(queen, ScriptedOpenAi(), nursery, build_gate(queen))
        read, unread = await submitted(site), await submitted(site)
        site.start(path(read), method="GET")
        await trio.sleep(2)
        await submitted(site)
        assert (read.state, unread.state) == (TaskState.QUEUED, TaskState.FAILED)
        nursery.cancel_scope.cancel()


async def test_a_readers_headers_say_where_the_task_runs_and_what_the_queen_added():
    async with desk() as site:
        task = await submitted(site)
        await end_events(task)
        answer = await site.ask(path(task), method="GET")
        assert answer.headers["x-llama-orch-pool"] == "p"
        assert float(answer.headers["x-llama-orch-overhead-ms"]) >= 0


async def test_a_store_that_fails_is_a_503_that_may_be_repeated():
    async with desk() as site:
        site.queen.store.failure = StoreFailure("the disk is full", "Make room.")
        answer = await site.ask(TASKS, {"prompt": "hello"})
        assert (answer.status, answer.json["retriable"], answer.json["hint"]) == (503, True, "Make room.")
        assert json.loads(answer.body)["message"] == "the disk is full"


@pytest.mark.parametrize(("query", "told"), [("?verbose=true", True), ("?verbose=0", False), ("", False)])
async def test_narration_is_for_those_who_ask_for_it(query: str, told: bool):
    async with desk() as site:
        task = await submitted(site)
        await end_events(task)
        answer = await site.ask(path(task) + query, method="GET")
        assert ("narration" in names(answer)) == told


async def test_what_verbose_cannot_be_is_refused_before_anything_is_streamed():
    async with desk() as site:
        task = await submitted(site)
        answer = await site.ask(path(task) + "?verbose=yes", method="GET")
        assert (answer.status, answer.json["fields"][0]["field"]) == (400, "verbose")
