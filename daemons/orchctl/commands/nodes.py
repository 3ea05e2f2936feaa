"""orchctl nodes: the GPU machines that have registered with the queen."""

import argparse
from collections.abc import Iterator

from llama_orch.contracts.meta import Version
from llama_orch.contracts.nodes import NodeList, NodeStatus, NodeView
from llama_orch.contracts.operations import Operation
from llama_orch.contracts.pools import PoolStatus
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, build_path, parse_response
from orchctl.command import CliCommand, ListedValues, argument, identifier
from orchctl.commands.operations import check_outcome, format_outcome, wait_for_end
from orchctl.commands.pools import format_pools
from orchctl.errors import CommandError
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.output import print_response
from orchctl.tables import duration, format_record, format_table, one_line

PATH = "/v2/nodes"
REMOVE, WAKE = "remove", "wake"
VERBS = (REMOVE, WAKE)
NODE_IDS = ListedValues("nodes")
HEADER = ("NODE", "STATUS", "AGE", "POOLS", "SLOTS", "GPUS", "ADDRESS", "VERSION")
CLOCK_SKEW_MS = 5000
"""Clock difference from which a node is reported. Clocks under NTP agree within milliseconds."""


async def nodes(options: argparse.Namespace, queen: QueenClient) -> None:
    """List the nodes, show one, wake one, or remove one. Raises CommandError."""
    match options.words:
        case []:
            version = parse_response(Version, await queen.get("/v2/meta/version")).version
            body = await queen.get(PATH)
            print_one(options, body, NodeList, lambda listed: format_nodes(listed, version), node_ids)
        case ["remove", node]:
            await queen.command("DELETE", build_path(PATH, node))
        case ["wake", node]:
            ended = await wait_for_end(queen, await queen.call("POST", build_path(PATH, node, WAKE)))
            print_response(options.json, ended, Operation, format_outcome)
            check_outcome(parse_response(Operation, ended))
        case [node] if node not in VERBS:
            body = await queen.get(build_path(PATH, node))
            print_one(options, body, NodeView, format_node, lambda one: [one.node_id])
        case _:
            raise CommandError("expected one node id", "Usage: orchctl nodes [remove|wake] NODE", ExitStatus.USAGE)


def node_ids(listed: NodeList) -> Iterator[str]:
    return (node.node_id for node in listed.nodes)


def format_nodes(nodes: NodeList, queen_version: str) -> str:
    """Format a row for each node, and below the table the problems of each."""
    if not nodes.nodes:
        return "no nodes are registered; HOME_PROFILE has none, see orchctl pools"
    problems = (f"{node.node_id}: {text}" for node in nodes.nodes for text in node_problems(node, queen_version))
    return "\n".join([format_table([HEADER, *map(_row, nodes.nodes)]), *problems])


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


def node_problems(node: NodeView, queen_version: str) -> Iterator[str]:
    if node.status is NodeStatus.OFFLINE:
        yield f"offline, {last_heartbeat(node)}"
    if node.status is NodeStatus.FAILED:
        yield f"all its pools have failed: {pool_errors(node)}"
    if node.clock_skew_ms is not None and abs(node.clock_skew_ms) > CLOCK_SKEW_MS:
        yield f"its clock is {clock_difference(node.clock_skew_ms / 1000)} the queen's"
    if node.version != queen_version:
        yield f"its version is {one_line(node.version)}, the queen's is {queen_version}"


def last_heartbeat(node: NodeView) -> str:
    age = duration(node.age_ms / 1000)
    if node.last_heartbeat_at is None:
        return f"no heartbeat since it registered {age} ago"
    return f"last heartbeat at {node.last_heartbeat_at:%Y-%m-%d %H:%M:%S %Z} ({age} ago)"


def pool_errors(node: NodeView) -> str:
    errors = (f"{pool.pool_id}: {one_line(pool.last_error)}" for pool in node.pools if pool.last_error)
    return "; ".join(errors) or "no reason reported"


def clock_difference(seconds: float) -> str:
    """Format as in `12 s ahead of`."""
    return f"{duration(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'}"


def format_node(node: NodeView) -> str:
    """Format all fields of a node, then the table of its pools."""
    pools = [PoolStatus.model_validate(pool.model_dump(exclude={"node_id"})) for pool in node.pools]
    return f"{format_record(node, exclude='pools')}\n\n{format_pools(pools)}"


NODES = CliCommand(
    "nodes",
    "show the GPU machines; show, wake or remove one",
    nodes,
    [
        argument(
            "words",
            nargs="*",
            type=identifier,
            metavar="[remove|wake] NODE",
            help="node to show; after `remove`, the node to remove: a machine that will not come back; after `wake`, "
            "the node to wake from sleep, by Wake-on-LAN",
            completion=ListedValues("nodes", VERBS),
        ),
        *LIST_ARGUMENTS,
    ],
)
