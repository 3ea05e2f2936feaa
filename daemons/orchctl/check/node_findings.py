"""What an operator should know about the GPU machines: that they are heard, and reached, and alike. Pure."""

from collections.abc import Iterator

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.meta import Version
from llama_orch.contracts.nodes import NodeList, NodeReachability, NodeStatus, NodeView
from orchctl.check.findings import Finding, problem, refused, warning, well
from orchctl.check.observations import Observations
from orchctl.commands.nodes import CLOCK_SKEW_MS, errors_of, last_heard, skew
from orchctl.errors import CommandError
from orchctl.tables import duration, one_line

MISSED = 3
"""After so many intervals without a heartbeat a node that still counts as online is late."""
SPEAKING = (NodeStatus.ONLINE, NodeStatus.DRAINING, NodeStatus.FAILED)
CLOSED_WAY = (
    "Open that port to the queen, or set POOL_MANAGERD_ADVERTISE_URL on that machine to what she can reach; where it "
    "answers 401 or 403, compare token_fp6 in both logs."
)

Reach = NodeReachability | CommandError | None


def of_nodes(facts: Observations) -> Iterator[Finding]:
    """Which profile it is, and how each node is."""
    if isinstance(facts.nodes, NodeList):
        yield _together(facts.nodes)
        for node in facts.nodes.nodes:
            yield from of_node(node, facts.reachability.get(node.node_id), _version(facts))
    elif facts.nodes.code == ErrorCode.NOT_FOUND:
        yield warning("nodes", "this queen does not know of nodes", "Upgrade queen-rbee.")
    elif not refused(facts.nodes):
        yield problem("nodes", f"/v2/nodes: {facts.nodes.message}", "See journalctl -x -u queen-rbee.")


def _version(facts: Observations) -> str:
    return facts.version.version if isinstance(facts.version, Version) else facts.own_version


def _together(found: NodeList) -> Finding:
    if not found.nodes:
        return well("nodes", "none: HOME_PROFILE (one machine), or none has registered with a queen of CLOUD_PROFILE")
    online = sum(node.status is NodeStatus.ONLINE for node in found.nodes)
    return well("nodes", f"CLOUD_PROFILE, {online} of {len(found.nodes)} online")


def of_node(node: NodeView, reach: Reach, version: str) -> Iterator[Finding]:
    """How one node is; `reach` is the queen's view of the way to it, `version` her own."""
    subject = f"node {node.node_id}"
    wrong = [*_standing(subject, node, reach), *_way(subject, node, reach), *_unlike(subject, node, version)]
    yield from wrong or [well(subject, f"online, heard {duration(node.age_ms / 1000)} ago{_latency(reach)}")]


def _latency(reach: Reach) -> str:
    known = isinstance(reach, NodeReachability) and reach.latency_ms is not None
    return f", reached in {reach.latency_ms:.0f} ms" if known else ""  # type: ignore[union-attr]


def _standing(subject: str, node: NodeView, reach: Reach) -> Iterator[Finding]:
    match node.status:
        case NodeStatus.OFFLINE:
            yield problem(subject, f"offline, {last_heard(node)}", _offline(node, reach))
        case NodeStatus.FAILED:
            mend = "On that machine: journalctl -x -u engine-provisioner"
            yield problem(subject, f"none of its pools serves: {errors_of(node)}", mend)
        case NodeStatus.DRAINING:
            mend = f"To undo that: orchctl resume --node {node.node_id}"
            yield warning(subject, "it is drained and gets no tasks", mend)
        case NodeStatus.REGISTERING:
            mend = "If it lasts, on that machine: journalctl -x -u pool-managerd"
            yield warning(subject, "it has registered and sent no heartbeat yet", mend)
        case NodeStatus.ONLINE if node.age_ms > MISSED * node.heartbeat_interval_ms:
            text = f"its heartbeats are late: {last_heard(node)}, and one is due each {_interval(node)}"
            yield warning(subject, text, "On that machine: systemctl status pool-managerd")


def _interval(node: NodeView) -> str:
    return f"{node.heartbeat_interval_ms / 1000:g} s"


def _offline(node: NodeView, reach: Reach) -> str:
    if isinstance(reach, NodeReachability) and reach.reachable:
        return "The queen reaches it; on that machine see whether it reaches her: journalctl -x -u pool-managerd"
    gone = f"Gone for good: orchctl nodes remove {node.node_id}"
    return f"On that machine: systemctl status pool-managerd. {gone}"


def _way(subject: str, node: NodeView, reach: Reach) -> Iterator[Finding]:
    """From the queen to the node; that it is closed to a silent node is no news."""
    if isinstance(reach, CommandError):
        text = f"the queen does not tell whether she reaches it: {reach.message}"
        yield warning(subject, text, "See journalctl -x -u queen-rbee.")
    elif reach and not reach.reachable and node.status in (*SPEAKING, NodeStatus.REGISTERING):
        text = f"it is heard, but the queen does not reach {reach.address}: {one_line(reach.problem)}"
        yield problem(subject, text, CLOSED_WAY)


def _unlike(subject: str, node: NodeView, version: str) -> Iterator[Finding]:
    if node.clock_skew_ms is not None and abs(node.clock_skew_ms) > CLOCK_SKEW_MS:
        text = f"its clock is {skew(node.clock_skew_ms / 1000)} the queen's"
        yield warning(subject, text, "Set both by NTP: timedatectl set-ntp true")
    if node.version != version:
        text = f"its version is {one_line(node.version)}, the queen's {version}"
        yield warning(subject, text, "Upgrade the older of the two.")
