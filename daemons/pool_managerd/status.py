"""What the daemon says of itself in `systemctl status`: its pools, and how it stands with the queen of a cluster."""

from functools import partial

from llama_orch.service.notify import Notifier
from pool_managerd.agent import Agent
from pool_managerd.registry import Registry
from pool_managerd.summary import status_line
from pool_managerd.waiting import first_of


def line(registry: Registry, agent: Agent | None) -> str:
    """All of it in one line."""
    pools = status_line(registry.pools)
    return f"{pools}; {agent.line}" if agent else pools


async def keep_status(registry: Registry, agent: Agent | None, notifier: Notifier) -> None:
    """Keep `systemctl status` true for ever."""
    shown = ""
    while True:
        revision, standing = registry.revision, agent.line if agent else ""
        now = line(registry, agent)
        if now != shown:
            notifier.status(now)
            shown = now
        changes = [partial(registry.changed, revision)]
        if agent:
            changes.append(partial(agent.changed, standing))
        await first_of(*changes)
