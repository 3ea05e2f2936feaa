"""Report the progress of waiting tasks that are read: `metrics` events with position, predicted start, preparation.

A task far back in the queue gets an event for every tenth of the way only, so that its log grows with the logarithm of
its position, however long it waits.
"""

import trio

from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.pools.candidates import Demand
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.task import Task

INTERVAL_S = 2.0
EVERY_POSITION_BELOW = 10


def is_worth_reporting(reported: int | None, position: int) -> bool:
    """Return whether `position` differs enough from the position reported last."""
    if reported is None:
        return True
    return reported != position if position < EVERY_POSITION_BELOW else abs(reported - position) * 10 >= reported


def steps_before(demand: Demand, registry: PoolRegistry) -> list[str]:
    """Return what must happen before a task with this demand can run, besides waiting for a slot."""
    suitable = registry.replicas.suitable(demand)
    if any(replica.serves for replica in suitable):
        return []
    coming_up = [f"finish loading pool {replica.pool_id}" for replica in suitable if replica.coming_up]
    awake = [replica for replica in suitable if replica.available and not replica.asleep]
    unloaded = [f"load pool {replica.pool_id}" for replica in awake]
    asleep = [f"wake node {replica.node_id} for pool {replica.pool_id}" for replica in suitable if replica.asleep]
    return (coming_up or unloaded or asleep)[:1]


async def report_progress(queue: AdmissionQueue[Task], forecast: Forecast, registry: PoolRegistry) -> None:
    """Walk the whole queue every INTERVAL_S seconds, until cancelled."""
    while True:
        await trio.sleep(INTERVAL_S)
        depth = len(queue)
        steps_of: dict[Demand, tuple[str, ...]] = {}
        for position, task in enumerate(queue.order()):
            if not task.log.readers:
                continue
            steps = steps_of.get(task.demand)
            if steps is None:
                steps = steps_of[task.demand] = tuple(steps_before(task.demand, registry))
            if steps != task.reported_steps or is_worth_reporting(task.reported_position, position):
                report_position(task, position, depth, forecast, steps)


def report_position(task: Task, position: int, depth: int, forecast: Forecast, steps: tuple[str, ...]) -> None:
    metrics: dict[str, object] = {"queue_depth": depth, "queue_position": position}
    if steps or task.reported_steps:
        metrics["preparation"] = {"steps": list(steps)}
    task.reported_position, task.reported_steps = position, steps
    start_ms = forecast.start_ms(task.demand, position)
    if start_ms is not None:
        metrics["predicted_start_ms"] = start_ms
    if task.request.deadline_ms and start_ms is not None:
        metrics["on_time_probability"] = round(forecast.on_time(task, position, trio.current_time()), 3)
    task.log.append("metrics", metrics)
