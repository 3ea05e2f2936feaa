"""What the queen says of itself: the line for `systemctl status`, readiness, and the gauges that follow its state."""

from collections import Counter

import trio

from llama_orch.service.notify import Notifier
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.metrics import NO_POOL, Metrics
from queen_rbee.pools.registry import Registry
from queen_rbee.tasks.task import Task

INTERVAL_S = 1.0


def summary(queue: AdmissionQueue[Task], registry: Registry, fleet: Fleet) -> str:
    """As in "2 pools ready, 7 queued, 3 running", in CLOUD_PROFILE with "3 of 4 nodes online" before it."""
    ready = registry.ready_pools
    nodes = f"{fleet.online} of {fleet.size} nodes online, " if fleet.size else ""
    pools = f"{nodes}{ready} pool{'s' * (ready != 1)} ready"
    return f"{pools}, {len(queue)} queued, {registry.leased} running"


def unready(registry: Registry) -> list[str]:
    """What stands against sending tasks here: nothing, as soon as one pool is ready."""
    if registry.ready_pools:
        return []
    return ["no pool is ready; see orchctl pools"]


async def keep_status(
    queue: AdmissionQueue[Task],
    registry: Registry,
    accounting: Accounting,
    metrics: Metrics,
    fleet: Fleet,
    notifier: Notifier,
) -> None:
    """Tell the service manager whenever the summary changes, and the log of dropped tasks, at most once in INTERVAL_S
    seconds."""
    said = ""
    while True:
        if (line := summary(queue, registry, fleet)) != said:
            notifier.status(line)
            said = line
        show_gauges(queue, registry, metrics)
        metrics.nodes_online.set(fleet.online)
        accounting.report_dropped()
        await trio.sleep(INTERVAL_S)


def show_gauges(queue: AdmissionQueue[Task], registry: Registry, metrics: Metrics) -> None:
    """Have the gauges say what is so now, and those of gone pools nothing."""
    metrics.depths(waiting(queue, registry))
    metrics.ready_pools(registry.ready_by_id)
    metrics.hide_old_errors(trio.current_time())


def waiting(queue: AdmissionQueue[Task], registry: Registry) -> Counter[tuple[str, str, str]]:
    """How many tasks wait, by the engine and pool that they could go to (see `Directory.place_of`), and priority."""
    found = Counter({("", NO_POOL, "interactive"): 0, ("", NO_POOL, "batch"): 0})
    for task in queue.order():
        found[(*registry.replicas.place_of(task.demand), task.request.priority)] += 1
    return found
