"""Readers of waiting tasks hear how the queue moves, and logs grow little by it."""

import json

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.intake.progress import INTERVAL_S, keep_telling, worth_telling
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import Queen, core
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine


def told(task: Task) -> list[int]:
    """The positions that readers of `task` have heard."""
    metrics = [json.loads(frame.payload) for frame in task.log.frames(0) if frame.event == "metrics"]
    return [said["queue_position"] for said in metrics]


def queue_of(count: int) -> tuple[Queen, list[Task]]:
    queen = core(ScriptedEngine())
    queen.pool(ready=False)
    tasks = [queen.submit(deadline_ms=3_600_000) for _ in range(count)]
    for task in tasks:
        task.log.readers += 1
    return queen, tasks


async def test_a_reader_hears_of_each_place_that_its_task_gains(autojump_clock):
    queen, tasks = queue_of(4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_telling, queen.dispatcher)
        for task in tasks[:3]:
            await trio.sleep(INTERVAL_S + 0.1)
            queen.dispatcher.cancel(task)
        await trio.sleep(INTERVAL_S + 0.1)
        nursery.cancel_scope.cancel()
    assert told(tasks[3]) == [2, 1, 0]
    said = json.loads(next(frame for frame in tasks[3].log.frames(0) if frame.event == "metrics").payload)
    assert {"queue_depth", "queue_position"} == set(said), "nothing serves them: when they start is not known"


async def test_reader_is_told_the_likely_start_while_a_pool_is_busy(autojump_clock):
    queen, tasks = queue_of(1)
    queen.pool()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_telling, queen.dispatcher)
        await trio.sleep(INTERVAL_S + 0.1)
        tasks[0].told_position = None
        await trio.sleep(INTERVAL_S + 0.1)
        nursery.cancel_scope.cancel()
    said = json.loads([frame for frame in tasks[0].log.frames(0) if frame.event == "metrics"][-1].payload)
    assert {"queue_depth", "queue_position", "predicted_start_ms", "on_time_probability"} == set(said)


async def test_a_task_that_nobody_reads_is_told_nothing(autojump_clock):
    queen, tasks = queue_of(2)
    tasks[1].log.readers = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_telling, queen.dispatcher)
        queen.dispatcher.cancel(tasks[0])
        await trio.sleep(10 * INTERVAL_S)
        nursery.cancel_scope.cancel()
    assert told(tasks[1]) == []


@given(st.integers(1, 100_000))
def test_a_long_way_is_told_in_few_words_and_never_backwards(start):
    heard, last = [], None
    for position in range(start, -1, -max(1, start // 1000)):
        if worth_telling(last, position):
            heard.append(position)
            last = position
    assert heard == sorted(set(heard), reverse=True)
    assert len(heard) < 120
