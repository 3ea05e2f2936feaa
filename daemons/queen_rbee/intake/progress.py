"""Tells the readers of waiting tasks how the queue moves: `metrics` events with their position and likely start.

A task hears of it only while somebody reads its events, and far back in the queue only of every tenth of the way: its
log grows with the logarithm of its position, whatever the wait.
"""

import trio

from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.tasks.task import Task

INTERVAL_S = 2.0
EACH_BELOW = 10


def worth_telling(told: int | None, position: int) -> bool:
    """Whether somebody who heard `told` wants to hear `position`."""
    if told is None:
        return True
    return told != position if position < EACH_BELOW else abs(told - position) * 10 >= told


async def keep_telling(dispatcher: Dispatcher) -> None:
    """Look at the whole queue every INTERVAL_S seconds, for ever."""
    while True:
        await trio.sleep(INTERVAL_S)
        for position, task in enumerate(dispatcher.queue.order()):
            if task.log.readers and worth_telling(task.told_position, position):
                tell(dispatcher, task, position)


def tell(dispatcher: Dispatcher, task: Task, position: int) -> None:
    """One event for one waiting task."""
    task.told_position = position
    now = trio.current_time()
    said: dict[str, object] = {
        "queue_depth": len(dispatcher.queue),
        "queue_position": position,
    }
    start_ms = dispatcher.forecast.start_ms(task.demand, position)
    if start_ms is not None:
        said["predicted_start_ms"] = start_ms
    if task.request.deadline_ms and start_ms is not None:
        said["on_time_probability"] = round(dispatcher.forecast.on_time(task, position, now), 3)
    task.log.append("metrics", said)
