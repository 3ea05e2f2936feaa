"""Waiting tasks that are read get their queue positions, in few events."""

import json

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.intake.progress import INTERVAL_S, is_worth_reporting, report_progress
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import QueenCore, build_queen
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine


def reported_positions(task: Task) -> list[int]:
    metrics = [json.loads(frame.payload) for frame in task.log.frames(0) if frame.event == "metrics"]
    return [event["queue_position"] for event in metrics]


def queue_of(count: int) -> tuple[QueenCore, list[Task]]:
    queen = build_queen(ScriptedEngine())
    queen.pool(ready=False)
    tasks = [queen.submit(deadline_ms=3_600_000) for _ in range(count)]
    for task in tasks:
        task.log.readers += 1
    return queen, tasks


async def test_each_position_near_the_front_is_reported(autojump_clock):
    queen, tasks = queue_of(4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report_progress, queen.queue, queen.forecast, queen.registry)
        for task in tasks[:3]:
            await trio.sleep(INTERVAL_S + 0.1)
            queen.dispatcher.cancel(task)
        await trio.sleep(INTERVAL_S + 0.1)
        nursery.cancel_scope.cancel()
    assert reported_positions(tasks[3]) == [2, 1, 0]
    event = json.loads(next(frame for frame in tasks[3].log.frames(0) if frame.event == "metrics").payload)
    assert {"queue_depth", "queue_position"} == set(event), "no start can be predicted while no pool serves"


async def test_predicted_start_is_reported_while_a_pool_serves(autojump_clock):
    queen, tasks = queue_of(1)
    queen.pool()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report_progress, queen.queue, queen.forecast, queen.registry)
        await trio.sleep(INTERVAL_S + 0.1)
        tasks[0].reported_position = None
        await trio.sleep(INTERVAL_S + 0.1)
        nursery.cancel_scope.cancel()
    event = json.loads([frame for frame in tasks[0].log.frames(0) if frame.event == "metrics"][-1].payload)
    assert {"queue_depth", "queue_position", "predicted_start_ms", "on_time_probability"} == set(event)


async def test_task_without_readers_gets_no_events(autojump_clock):
    queen, tasks = queue_of(2)
    tasks[1].log.readers = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report_progress, queen.queue, queen.forecast, queen.registry)
        queen.dispatcher.cancel(tasks[0])
        await trio.sleep(10 * INTERVAL_S)
        nursery.cancel_scope.cancel()
    assert reported_positions(tasks[1]) == []


@given(st.integers(1, 100_000))
def test_far_positions_are_reported_seldom_and_descending(start):
    reported, last = [], None
    for position in range(start, -1, -max(1, start // 1000)):
        if is_worth_reporting(last, position):
            reported.append(position)
            last = position
    assert reported == sorted(set(reported), reverse=True)
    assert len(reported) < 120
