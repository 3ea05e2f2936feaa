"""Reports when a node falls asleep, wakes up, or sends heartbeats again."""

from llama_orch.telemetry.events import power, queen
from llama_orch.telemetry.records import emit
from queen_rbee.fleet.nodes import Node


def report_presence(node: Node, now: float, *, sleeps: bool) -> None:
    """Report what changes with a heartbeat; `node` is as it was before, `sleeps` whether it sleeps from now on."""
    silent_s = round(now - node.heard_at)
    if node.offline:
        emit(queen.NODE_ONLINE, node_id=node.node_id, silent_s=silent_s)
    if node.asleep and not sleeps:
        emit(power.NODE_WOKEN, node_id=node.node_id, slept_s=silent_s)
    if sleeps and not node.asleep:
        emit(power.NODE_SLEEPING, node_id=node.node_id)
