"""Report queue positions: `metrics` events with position and predicted start, for waiting tasks that are read.

A task far back in the queue gets an event for every tenth of the way only, so that its log grows with the logarithm of
its position, however long it waits.
"""

import trio

from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.tasks.task import Task

INTERVAL_S = 2.0
EVERY_POSITION_BELOW = 10


def is_worth_reporting(reported: int | None, position: int) -> bool:
    """Return whether `position` differs enough from the position reported last."""
    if reported is None:
        return True
    return reported != position if position < EVERY_POSITION_BELOW else abs(reported - position) * 10 >= reported


async def report_progress(queue: AdmissionQueue[Task], forecast: Forecast) -> None:
    """Walk the whole queue every INTERVAL_S seconds, until cancelled."""
    while True:
        await trio.sleep(INTERVAL_S)
        depth = len(queue)
        for position, task in enumerate(queue.order()):
            if task.log.readers and is_worth_reporting(task.reported_position, position):
                report_position(task, position, depth, forecast)


def report_position(task: Task, position: int, depth: int, forecast: Forecast) -> None:
    task.reported_position = position
    metrics: dict[str, object] = {"queue_depth": depth, "queue_position": position}
    start_ms = forecast.start_ms(task.demand, position)
    if start_ms is not None:
        metrics["predicted_start_ms"] = start_ms
    if task.request.deadline_ms and start_ms is not None:
        metrics["on_time_probability"] = round(forecast.on_time(task, position, trio.current_time()), 3)
    task.log.append("metrics", metrics)
