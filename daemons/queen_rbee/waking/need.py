"""Which sleeping nodes to wake, for the tasks that wait. Pure functions."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from queen_rbee.pools.candidates import Candidate

PATIENCE_S = 10.0
"""How long a task waits for a slot of a node that is awake, or for memory there, before another node is woken."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0


@dataclass(frozen=True)
class Waiting:
    """Tasks that wait for one of these replicas; the first of them has waited for `waited_s` seconds."""

    suitable: Sequence[Candidate]
    waited_s: float

    @property
    def asleep(self) -> frozenset[str]:
        """The nodes that sleep and could serve them."""
        return frozenset(each.node_id for each in self.suitable if each.asleep and each.node_id)


def needs_node(waiting: Waiting, waking: Collection[str]) -> bool:
    """Whether a node must be woken for these tasks: none awake can serve them, or they have waited for too long.

    Not while a node is being woken for them, or a model is being loaded.
    """
    if not waiting.asleep or not waiting.asleep.isdisjoint(waking) or any(each.coming_up for each in waiting.suitable):
        return False
    awake = any(each.available and not each.asleep and not each.draining for each in waiting.suitable)
    return not awake or waiting.waited_s >= PATIENCE_S


def nodes_to_wake(waits: Iterable[Waiting], waking: Collection[str]) -> dict[str, str]:
    """Return the nodes to wake, each with a pool that tasks wait for: as few as can serve all of `waits`."""
    left = [waiting for waiting in waits if needs_node(waiting, waking)]
    found: dict[str, str] = {}
    while left:
        votes = Counter(node_id for waiting in left for node_id in waiting.asleep)
        node_id = min(votes, key=lambda name: (-votes[name], name))
        served = next(waiting for waiting in left if node_id in waiting.asleep)
        found[node_id] = next(each.pool_id for each in served.suitable if each.asleep and each.node_id == node_id)
        left = [waiting for waiting in left if node_id not in waiting.asleep]
    return found


def keeps_awake(waits: Iterable[Waiting], node_id: str) -> bool:
    """Whether tasks wait that this node could serve, so that it must not be suspended now."""
    return any(each.node_id == node_id and each.available for waiting in waits for each in waiting.suitable)


def pause_s(sent: int) -> float:
    """Return the seconds until packets are sent again, after `sent` times: twice as long each time, up to a limit."""
    return min(FIRST_PAUSE_S * 2.0 ** min(sent - 1, 10), LONGEST_PAUSE_S)
