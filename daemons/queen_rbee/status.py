"""What the queen says of itself: the line for `systemctl status`, readiness, and the gauges that follow its state."""

import trio

from llama_orch.service.notify import Notifier
from queen_rbee.dispatcher import Dispatcher

INTERVAL_S = 1.0


def summary(dispatcher: Dispatcher) -> str:
    """As in "2 pools ready, 7 queued, 3 running"."""
    ready = sum(pool.ready for pool in dispatcher.registry.pools())
    pools = f"{ready} pool{'s' * (ready != 1)} ready"
    return f"{pools}, {len(dispatcher.queue)} queued, {dispatcher.registry.leased} running"


def unready(dispatcher: Dispatcher) -> list[str]:
    """What stands against sending tasks here: nothing, as soon as one pool is ready."""
    if any(pool.ready for pool in dispatcher.registry.pools()):
        return []
    return ["no pool is ready; see orchctl pools"]


async def keep_status(dispatcher: Dispatcher, notifier: Notifier) -> None:
    """Tell the service manager whenever the summary changes, and the log of dropped tasks, at most once in INTERVAL_S
    seconds."""
    said, seen = "", set[str]()
    while True:
        if (line := summary(dispatcher)) != said:
            notifier.status(line)
            said = line
        seen = _gauges(dispatcher, seen)
        dispatcher.accounting.report_dropped()
        await trio.sleep(INTERVAL_S)


def _gauges(dispatcher: Dispatcher, seen: set[str]) -> set[str]:
    """Set the gauges; series of pools that are gone are removed. Returns the pools that have one now."""
    metrics, pools = dispatcher.metrics, dispatcher.registry.pools()
    metrics.depth.labels("", "", "", "interactive").set(dispatcher.queue.depth("interactive"))
    metrics.depth.labels("", "", "", "batch").set(dispatcher.queue.depth("batch"))
    for pool in pools:
        metrics.available.labels(pool.pool_id).set(pool.ready)
    now = {pool.pool_id for pool in pools}
    for gone in seen - now:
        metrics.available.remove(gone)
    return now
