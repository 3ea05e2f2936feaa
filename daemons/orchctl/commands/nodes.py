"""orchctl nodes: the GPU machines that have registered with the queen."""

import argparse
from collections.abc import Iterator

from llama_orch.contracts.meta import Version
from llama_orch.contracts.nodes import NodeList, NodeStatus, NodeView
from llama_orch.contracts.pools import PoolStatus
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, below, understood
from orchctl.command import Commands, identifier
from orchctl.commands.pools import pools_text
from orchctl.errors import CommandError
from orchctl.output import show
from orchctl.tables import duration, one_line, table, whole

PATH = "/v2/nodes"
REMOVE = "remove"
HEADER = ("NODE", "STATUS", "AGE", "POOLS", "SLOTS", "GPUS", "ADDRESS", "VERSION")
CLOCK_SKEW_MS = 5000
"""How far a node's clock may be off before it is told; the clock of machines that run NTP is within milliseconds."""


def add(commands: Commands) -> None:
    """Add the command `nodes`."""
    command = commands.add("nodes", nodes, "the GPU machines; show or remove one")
    words = "show all that is known of this one; with `remove` before it, forget it: a machine that is gone for good"
    command.add_argument("words", nargs="*", type=identifier, metavar="[remove] NODE", help=words)


async def nodes(options: argparse.Namespace, queen: QueenClient) -> None:
    """A table of nodes, or everything about one, or one less. Raises CommandError."""
    match options.words:
        case []:
            version = understood(Version, await queen.get("/v2/meta/version")).version
            show(options.json, await queen.get(PATH), NodeList, lambda found: nodes_text(found, version))
        case ["remove", node]:
            await queen.bid("DELETE", below(PATH, node))
        case [node] if node != REMOVE:
            show(options.json, await queen.get(below(PATH, node)), NodeView, node_text)
        case _:
            raise CommandError("one node is meant", "As in: orchctl nodes [remove] NODE", ExitStatus.USAGE)


def nodes_text(found: NodeList, version: str) -> str:
    """One line a node, and below them what is wrong with each; `version` is the queen's."""
    if not found.nodes:
        return "no node has registered; in HOME_PROFILE there are none, see orchctl pools"
    problems = (f"{node.node_id}: {text}" for node in found.nodes for text in problems_of(node, version))
    return "\n".join([table([HEADER, *map(_row, found.nodes)]), *problems])


def _row(node: NodeView) -> tuple[str, ...]:
    pools = node.pools
    return (
        node.node_id,
        node.status,
        duration(node.age_ms / 1000),
        f"{sum(pool.ready for pool in pools)}/{len(pools)}",
        f"{sum(pool.slots_free for pool in pools)}/{sum(pool.slots_total for pool in pools)}",
        str(len(node.capabilities.gpus)),
        node.address,
        one_line(node.version),
    )


def problems_of(node: NodeView, version: str) -> Iterator[str]:
    """What is wrong with a node, in words; `version` is the queen's."""
    if node.status is NodeStatus.OFFLINE:
        yield f"offline, {last_heard(node)}"
    if node.status is NodeStatus.FAILED:
        yield f"none of its pools serves: {errors_of(node)}"
    if node.clock_skew_ms is not None and abs(node.clock_skew_ms) > CLOCK_SKEW_MS:
        yield f"its clock is {skew(node.clock_skew_ms / 1000)} the queen's"
    if node.version != version:
        yield f"its version is {one_line(node.version)}, the queen's {version}"


def last_heard(node: NodeView) -> str:
    """When it was heard last."""
    if node.last_heartbeat_at is None:
        return f"not heard since it registered {duration(node.age_ms / 1000)} ago"
    return f"not heard since {node.last_heartbeat_at:%Y-%m-%d %H:%M:%S %Z} ({duration(node.age_ms / 1000)})"


def errors_of(node: NodeView) -> str:
    """Why its pools fail, a reason each."""
    errors = (f"{pool.pool_id}: {one_line(pool.last_error)}" for pool in node.pools if pool.last_error)
    return "; ".join(errors) or "no reason is given"


def skew(seconds: float) -> str:
    """How a clock is off, as in `12 s ahead of`."""
    return f"{duration(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'}"


def node_text(node: NodeView) -> str:
    """All that is known of one, and below that its pools."""
    pools = [PoolStatus.model_validate(pool.model_dump(exclude={"node_id"})) for pool in node.pools]
    return f"{whole(node, without='pools')}\n\n{pools_text(pools)}"
