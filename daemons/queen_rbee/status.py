"""What the queen says of itself: the line for `systemctl status`, readiness, and the gauges that follow its state."""

from collections import Counter

import trio

from llama_orch.service.notify import Notifier
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.metrics import NO_POOL

INTERVAL_S = 1.0


def summary(dispatcher: Dispatcher, fleet: Fleet) -> str:
    """As in "2 pools ready, 7 queued, 3 running", in CLOUD_PROFILE with "3 of 4 nodes online" before it."""
    ready = dispatcher.registry.ready_pools
    nodes = f"{fleet.online} of {fleet.size} nodes online, " if fleet.size else ""
    pools = f"{nodes}{ready} pool{'s' * (ready != 1)} ready"
    return f"{pools}, {len(dispatcher.queue)} queued, {dispatcher.registry.leased} running"


def unready(dispatcher: Dispatcher) -> list[str]:
    """What stands against sending tasks here: nothing, as soon as one pool is ready."""
    if dispatcher.registry.ready_pools:
        return []
    return ["no pool is ready; see orchctl pools"]


async def keep_status(dispatcher: Dispatcher, fleet: Fleet, notifier: Notifier) -> None:
    """Tell the service manager whenever the summary changes, and the log of dropped tasks, at most once in INTERVAL_S
    seconds."""
    said = ""
    while True:
        if (line := summary(dispatcher, fleet)) != said:
            notifier.status(line)
            said = line
        show_gauges(dispatcher)
        dispatcher.metrics.nodes_online.set(fleet.online)
        dispatcher.accounting.report_dropped()
        await trio.sleep(INTERVAL_S)


def show_gauges(dispatcher: Dispatcher) -> None:
    """Have the gauges say what is so now, and those of gone pools nothing."""
    metrics = dispatcher.metrics
    metrics.depths(waiting(dispatcher))
    metrics.ready_pools(dispatcher.registry.ready_by_id)
    metrics.hide_old_errors(trio.current_time())


def waiting(dispatcher: Dispatcher) -> Counter[tuple[str, str, str]]:
    """How many tasks wait, by the engine and pool that they could go to (see `Directory.place_of`), and priority."""
    found = Counter({("", NO_POOL, "interactive"): 0, ("", NO_POOL, "batch"): 0})
    for task in dispatcher.queue.order():
        found[(*dispatcher.registry.replicas.place_of(task.demand), task.request.priority)] += 1
    return found
