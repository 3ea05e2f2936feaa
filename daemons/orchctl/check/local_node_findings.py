"""What an operator should know about the machine that `orchctl check` runs on, as a node of the queen. Pure."""

from collections.abc import Iterator

from llama_orch.contracts.nodes import NodeList, NodeStanding, NodeView
from orchctl.check.findings import Finding, problem, reasons, refused, warning, well
from orchctl.check.local_node import LocalNode, own_nodes
from orchctl.check.observations import Observations
from orchctl.errors import CommandError
from orchctl.tables import one_line

NODE = "this node"
JOURNAL = "See journalctl -x -u pool-managerd."
WHY = f"{JOURNAL} Where she answers 401 or 403, compare token_fp6 in both logs."
UNKNOWN = "Compare ORCHESTRATORD_URL and token_fp6 of both: journalctl -u pool-managerd | grep registration"
JOIN = "To make it one set POOL_MANAGERD_NODE_ID, ORCHESTRATORD_URL and LLORCH_API_TOKEN: see pool-managerd.env(5)."
TAKEN = (
    "Each machine needs a POOL_MANAGERD_NODE_ID of its own. Where this machine takes the place of that one: "
    "orchctl nodes remove {node_id}"
)


def of_local(facts: Observations) -> Iterator[Finding]:
    """How its pool-managerd is, how that stands with the queen, and whether she knows this machine. Nothing where there
    is no sign that it is a node."""
    found = facts.local
    if found is None or not (_there(found) or found.expected or own_nodes(facts.nodes, found.machine_id)):
        return
    yield _answers(found)
    yield from _standing(found, facts)
    if isinstance(facts.nodes, NodeList):
        yield from _known(found, facts, facts.nodes)


def _there(found: LocalNode) -> bool:
    return not isinstance(found.ready, CommandError)


def _answers(found: LocalNode) -> Finding:
    where = f"pool-managerd at {found.url}"
    if isinstance(found.ready, CommandError):
        return problem(NODE, f"{where}: {found.ready.message}", "See systemctl status pool-managerd.")
    if not found.ready.ready:
        return warning(NODE, f"{where} is not ready: {reasons(found.ready)}", JOURNAL)
    standing = found.standing
    profile = f", {standing.profile.upper()}_PROFILE" if isinstance(standing, NodeStanding) else ""
    return well(NODE, f"{where} is ready{profile}")


def _standing(found: LocalNode, facts: Observations) -> Iterator[Finding]:
    """What pool-managerd itself says of the way to the queen; one of an older release says nothing."""
    told = found.standing
    if isinstance(told, CommandError):
        if refused(told) and not refused(facts.pools):
            text = f"pool-managerd at {found.url} refuses the token that the queen accepts: {told.message}"
            yield problem(NODE, text, "Both need the same one; compare token_fp6 in both logs.")
        return
    if told.profile == "home":
        return
    where = f"the queen at {told.queen_url}"
    if told.problem and told.registered:
        yield warning(NODE, f"{where} does not answer it: {one_line(told.problem)}", WHY)
    elif told.problem:
        yield problem(NODE, f"it is not registered with {where}: {one_line(told.problem)}", WHY)
    elif told.registered:
        yield well(NODE, f"it reaches {where}, who accepts its token")
    else:
        yield warning(NODE, f"it is registering with {where}", f"If it lasts: {JOURNAL}")


def _known(found: LocalNode, facts: Observations, nodes: NodeList) -> Iterator[Finding]:
    """Whether the queen knows this machine: by the name that it has, or else by its machine id."""
    told = found.standing if isinstance(found.standing, NodeStanding) else None
    name = (told and told.node_id) or found.node_id
    machine_id = (told and told.machine_id) or found.machine_id
    named = [node for node in nodes.nodes if node.node_id == name] if name else own_nodes(nodes, machine_id)
    for node in named:
        yield _as_hers(node, machine_id, facts)
    if named or (told and told.problem and not told.registered):
        return  # why it is not registered has been said
    if name:
        yield problem(NODE, f"{name} is not registered with the queen at {facts.url}", UNKNOWN)
    elif told and nodes.nodes:
        yield warning(NODE, "it is none of the queen's nodes: it is in HOME_PROFILE, and she is not", JOIN)


def _as_hers(node: NodeView, machine_id: str | None, facts: Observations) -> Finding:
    if machine_id not in (None, node.machine_id):
        text = f"the queen knows another machine as {node.node_id}, at {node.address}"
        return problem(NODE, text, TAKEN.format(node_id=node.node_id))
    reach = facts.reachability.get(node.node_id)
    reached = bool(reach) and not isinstance(reach, CommandError) and reach.reachable  # type: ignore[union-attr]
    way = f", and reaches it at {node.address}" if reached else ""
    return well(NODE, f"the queen knows it as {node.node_id}: {node.status}{way}")
