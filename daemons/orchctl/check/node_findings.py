"""Findings about nodes: heartbeats, reachability from the queen, clocks and versions. Pure functions."""

from collections.abc import Iterator

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.meta import Version
from llama_orch.contracts.nodes import NodeList, NodeReachability, NodeStatus, NodeView
from orchctl.check.findings import Finding, ok, problem, token_refused, warning
from orchctl.check.observations import Observations
from orchctl.check.queen_findings import JOURNAL, NTP, UPGRADE
from orchctl.commands.nodes import CLOCK_SKEW_MS, clock_difference, last_heartbeat, pool_errors
from orchctl.errors import CommandError
from orchctl.tables import duration, one_line

LATE_INTERVALS = 3
"""Heartbeat intervals after which an online node is reported as late."""
REPORTED_UNREACHABLE = (NodeStatus.ONLINE, NodeStatus.DRAINING, NodeStatus.FAILED, NodeStatus.REGISTERING)
UNREACHABLE_ADVICE = (
    "Allow connections from the queen to that port, or set POOL_MANAGERD_ADVERTISE_URL on that machine to an address "
    "the queen can reach. If it answers 401 or 403, compare token_fp6 in both logs."
)

Reachability = NodeReachability | CommandError | None


def node_findings(observed: Observations) -> Iterator[Finding]:
    """Yield the profile, then the findings of each node."""
    if isinstance(observed.nodes, NodeList):
        yield _summary(observed.nodes)
        for node in observed.nodes.nodes:
            yield from _findings_of(node, observed.reachability.get(node.node_id), _queen_version(observed))
    elif observed.nodes.code == ErrorCode.NOT_FOUND:
        yield warning("nodes", "this queen does not support nodes", "Upgrade queen-rbee.")
    elif not token_refused(observed.nodes):
        yield problem("nodes", f"/v2/nodes: {observed.nodes.message}", JOURNAL)


def _queen_version(observed: Observations) -> str:
    return observed.version.version if isinstance(observed.version, Version) else observed.own_version


def _summary(nodes: NodeList) -> Finding:
    if not nodes.nodes:
        return ok("nodes", "none: HOME_PROFILE (one machine), or CLOUD_PROFILE without a registered node")
    online = sum(node.status is NodeStatus.ONLINE for node in nodes.nodes)
    asleep = sum(node.status is NodeStatus.ASLEEP for node in nodes.nodes)
    asleep_too = f", {asleep} asleep until needed" if asleep else ""
    return ok("nodes", f"CLOUD_PROFILE, {online} of {len(nodes.nodes)} online{asleep_too}")


def _findings_of(node: NodeView, reachability: Reachability, queen_version: str) -> Iterator[Finding]:
    subject = f"node {node.node_id}"
    findings = [
        *_status_findings(subject, node, reachability),
        *_reachability_findings(subject, node, reachability),
        *_difference_findings(subject, node, queen_version),
    ]
    heartbeat = f"last heartbeat {duration(node.age_ms / 1000)} ago"
    yield from findings or [ok(subject, f"online, {heartbeat}{_latency(reachability)}")]


def _latency(reachability: Reachability) -> str:
    if isinstance(reachability, NodeReachability) and reachability.latency_ms is not None:
        return f", reached in {reachability.latency_ms:.0f} ms"
    return ""


def _status_findings(subject: str, node: NodeView, reachability: Reachability) -> Iterator[Finding]:
    match node.status:
        case NodeStatus.OFFLINE:
            yield problem(subject, f"offline, {last_heartbeat(node)}", _offline_advice(node, reachability))
        case NodeStatus.FAILED:
            advice = "On that machine: journalctl -x -u engine-provisioner"
            yield problem(subject, f"all its pools have failed: {pool_errors(node)}", advice)
        case NodeStatus.DRAINING:
            advice = f"To undo the drain: orchctl resume --node {node.node_id}"
            yield warning(subject, "drained, gets no tasks", advice)
        case NodeStatus.REGISTERING:
            advice = "If this persists, on that machine: journalctl -x -u pool-managerd"
            yield warning(subject, "registered, but no heartbeat has arrived yet", advice)
        case NodeStatus.ONLINE if node.age_ms > LATE_INTERVALS * node.heartbeat_interval_ms:
            interval = f"{node.heartbeat_interval_ms / 1000:g} s"
            text = f"heartbeats are late: {last_heartbeat(node)}, the interval is {interval}"
            yield warning(subject, text, "On that machine: systemctl status pool-managerd")


def _offline_advice(node: NodeView, reachability: Reachability) -> str:
    if isinstance(reachability, NodeReachability) and reachability.reachable:
        return "The queen can reach it. Check there whether it can reach the queen: journalctl -x -u pool-managerd"
    remove = f"If the machine will not come back: orchctl nodes remove {node.node_id}"
    return f"On that machine: systemctl status pool-managerd. {remove}"


def _reachability_findings(subject: str, node: NodeView, reachability: Reachability) -> Iterator[Finding]:
    """Report an unreachable node unless it is offline: then its own finding says enough."""
    if isinstance(reachability, CommandError):
        text = f"cannot find out whether the queen reaches it: {reachability.message}"
        yield warning(subject, text, JOURNAL)
    elif reachability and not reachability.reachable and node.status in REPORTED_UNREACHABLE:
        text = f"the queen cannot reach it at {reachability.address}: {one_line(reachability.problem)}"
        yield problem(subject, text, UNREACHABLE_ADVICE)


def _difference_findings(subject: str, node: NodeView, queen_version: str) -> Iterator[Finding]:
    if node.clock_skew_ms is not None and abs(node.clock_skew_ms) > CLOCK_SKEW_MS:
        yield warning(subject, f"its clock is {clock_difference(node.clock_skew_ms / 1000)} the queen's", NTP)
    if node.version != queen_version:
        yield warning(subject, f"its version is {one_line(node.version)}, the queen's is {queen_version}", UPGRADE)
