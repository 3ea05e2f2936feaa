"""The daemon's line in `systemctl status`: pools, trouble with the state file, registration with the queen."""

from functools import partial

from llama_orch.service.notify import Notifier
from pool_managerd.cluster.agent import Agent
from pool_managerd.handoffs.state_file import StateFile
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.pool_status import status_line
from pool_managerd.wait_any import wait_any


def summary_line(node_pools: NodePools, agent: Agent | None, store: StateFile) -> str:
    return "; ".join(filter(None, [status_line(node_pools.pools), store.trouble, agent.line if agent else None]))


async def keep_status(node_pools: NodePools, agent: Agent | None, store: StateFile, notifier: Notifier) -> None:
    """Update `systemctl status` on each change, forever."""
    shown = ""
    while True:
        pools, registration, trouble = status_line(node_pools.pools), agent.line if agent else "", store.trouble
        now = summary_line(node_pools, agent, store)
        if now != shown:
            notifier.status(now)
            shown = now
        changes = [partial(_line_changed, node_pools, pools), partial(store.changed, trouble)]
        if agent:
            changes.append(partial(agent.changed, registration))
        await wait_any(*changes)


async def _line_changed(node_pools: NodePools, shown: str) -> None:
    """Return when the line about the pools differs from `shown`."""
    while status_line(node_pools.pools) == shown:
        await node_pools.settled()
