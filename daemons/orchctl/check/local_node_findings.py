"""Findings about this machine as a node: its pool-managerd, and its registration with the queen. Pure functions."""

from collections.abc import Iterator

from llama_orch.contracts.nodes import NodeList, NodeReachability, NodeStanding, NodeView
from orchctl.check.findings import Finding, format_reasons, ok, problem, token_refused, warning
from orchctl.check.local_node import LocalNode, nodes_of_machine
from orchctl.check.observations import Observations
from orchctl.errors import CommandError
from orchctl.tables import one_line

SUBJECT = "this node"
JOURNAL = "See journalctl -x -u pool-managerd."
REFUSED_ADVICE = f"{JOURNAL} If the queen answers 401 or 403, compare token_fp6 in both logs."
UNREGISTERED_ADVICE = (
    "Compare ORCHESTRATORD_URL and token_fp6 of both daemons: journalctl -u pool-managerd | grep registration"
)
JOIN_ADVICE = (
    "To make it one, set POOL_MANAGERD_NODE_ID, ORCHESTRATORD_URL and LLORCH_API_TOKEN: see pool-managerd.env(5)."
)
ID_IN_USE_ADVICE = (
    "Give each machine its own POOL_MANAGERD_NODE_ID. If this machine replaces that one: orchctl nodes remove {node_id}"
)


def local_node_findings(observed: Observations) -> Iterator[Finding]:
    """Yield nothing if nothing indicates that this machine is a node."""
    local = observed.local
    if local is None:
        return
    running = not isinstance(local.ready, CommandError)
    if not (running or local.expected or nodes_of_machine(observed.nodes, local.machine_id)):
        return
    yield _readiness_finding(local)
    yield from _standing_findings(local, observed)
    if isinstance(observed.nodes, NodeList):
        yield from _registration_findings(local, observed, observed.nodes)


def _readiness_finding(local: LocalNode) -> Finding:
    daemon = f"pool-managerd at {local.url}"
    if isinstance(local.ready, CommandError):
        return problem(SUBJECT, f"{daemon}: {local.ready.message}", "See systemctl status pool-managerd.")
    if not local.ready.ready:
        return warning(SUBJECT, f"{daemon} is not ready: {format_reasons(local.ready)}", JOURNAL)
    standing = local.standing
    profile = f", {standing.profile.upper()}_PROFILE" if isinstance(standing, NodeStanding) else ""
    return ok(SUBJECT, f"{daemon} is ready{profile}")


def _standing_findings(local: LocalNode, observed: Observations) -> Iterator[Finding]:
    """Findings from what pool-managerd reports about its queen; an older release reports nothing."""
    standing = local.standing
    if isinstance(standing, CommandError):
        if token_refused(standing) and not token_refused(observed.pools):
            text = f"pool-managerd at {local.url} refuses the token that the queen accepts: {standing.message}"
            yield problem(SUBJECT, text, "Set the same token for both; compare token_fp6 in both logs.")
        return
    if standing.profile == "home":
        return
    queen = f"the queen at {standing.queen_url}"
    if standing.problem and standing.registered:
        yield warning(SUBJECT, f"{queen} does not answer it: {one_line(standing.problem)}", REFUSED_ADVICE)
    elif standing.problem:
        yield problem(SUBJECT, f"not registered with {queen}: {one_line(standing.problem)}", REFUSED_ADVICE)
    elif standing.registered:
        yield ok(SUBJECT, f"{queen} answers it and accepts its token")
    else:
        yield warning(SUBJECT, f"registering with {queen}", f"If this persists: {JOURNAL}")


def _registration_findings(local: LocalNode, observed: Observations, nodes: NodeList) -> Iterator[Finding]:
    """Findings from the queen's list of nodes, in which this machine is found by its node id or else its machine id."""
    standing = local.standing if isinstance(local.standing, NodeStanding) else None
    node_id = (standing and standing.node_id) or local.node_id
    machine_id = (standing and standing.machine_id) or local.machine_id
    own = [node for node in nodes.nodes if node.node_id == node_id] if node_id else nodes_of_machine(nodes, machine_id)
    for node in own:
        yield _registered_finding(node, machine_id, observed)
    if own or (standing and standing.problem and not standing.registered):
        return  # _standing_findings() has the reason why it is not registered
    if node_id:
        yield problem(SUBJECT, f"{node_id} is not registered with the queen at {observed.url}", UNREGISTERED_ADVICE)
    elif standing and nodes.nodes:
        yield warning(SUBJECT, "not a node of the queen: it is in HOME_PROFILE, the queen is not", JOIN_ADVICE)


def _registered_finding(node: NodeView, machine_id: str | None, observed: Observations) -> Finding:
    if machine_id not in (None, node.machine_id):
        text = f"the queen has another machine registered as {node.node_id}, at {node.address}"
        return problem(SUBJECT, text, ID_IN_USE_ADVICE.format(node_id=node.node_id))
    reachability = observed.reachability.get(node.node_id)
    reached = isinstance(reachability, NodeReachability) and reachability.reachable
    address = f", reachable at {node.address}" if reached else ""
    return ok(SUBJECT, f"registered with the queen as {node.node_id}: {node.status}{address}")
