"""The status line for `systemctl status`, readiness, and the metrics that are set from the state of the queen."""

from collections import Counter

import trio

from llama_orch.contracts.pools import PoolState
from llama_orch.service.notify import Notifier
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.metrics import NO_POOL, Metrics
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.task import Task

INTERVAL_S = 1.0


def summary(queue: AdmissionQueue[Task], registry: PoolRegistry, fleet: Fleet) -> str:
    """Return, for example, "2 pools ready, 7 queued, 3 running", in CLOUD_PROFILE after "3 of 4 nodes online"."""
    ready = registry.ready_pools
    asleep = f" ({len(fleet.asleep)} asleep)" if fleet.asleep else ""
    nodes = f"{fleet.online} of {fleet.size} nodes online{asleep}, " if fleet.size else ""
    pools = f"{nodes}{ready} pool{'s' * (ready != 1)} ready"
    unloaded = sum(pool.state is PoolState.UNLOADED for pool in registry.effective_pools())
    pools += f", {unloaded} unloaded" if unloaded else ""
    return f"{pools}, {len(queue)} queued, {registry.leased} running"


def unready(registry: PoolRegistry) -> list[str]:
    """Return the reasons why the queen is not ready. It is ready when at least one pool is, or can be loaded."""
    if registry.ready_pools or any(replica.available for replica in registry.replicas.all()):
        return []
    return ["no pool is ready; see orchctl pools"]


async def keep_status(
    queue: AdmissionQueue[Task],
    registry: PoolRegistry,
    accounting: Accounting,
    metrics: Metrics,
    fleet: Fleet,
    notifier: Notifier,
) -> None:
    """Update the service manager's status line, the gauges and the log of dropped tasks every INTERVAL_S seconds."""
    current = ""
    while True:
        if (line := summary(queue, registry, fleet)) != current:
            notifier.status(line)
            current = line
        show_gauges(queue, registry, metrics)
        metrics.nodes.online.set(fleet.online)
        metrics.nodes.asleep.set(len(fleet.asleep))
        accounting.report_dropped()
        await trio.sleep(INTERVAL_S)


def show_gauges(queue: AdmissionQueue[Task], registry: PoolRegistry, metrics: Metrics) -> None:
    """Set the gauges to the current state, and remove the series of pools that are gone."""
    metrics.depths(waiting(queue, registry))
    metrics.ready_pools(registry.ready_by_id)
    metrics.nodes.hide_old_errors(trio.current_time())


def waiting(queue: AdmissionQueue[Task], registry: PoolRegistry) -> Counter[tuple[str, str, str]]:
    """Count the waiting tasks by engine and pool id (see `ReplicaIndex.shared_labels`) and priority."""
    counts = Counter({("", NO_POOL, "interactive"): 0, ("", NO_POOL, "batch"): 0})
    for task, number in queue.lane_depths():
        counts[(*registry.replicas.shared_labels(task.demand), task.request.priority)] += number
    return counts
