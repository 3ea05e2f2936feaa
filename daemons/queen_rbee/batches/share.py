"""How many lines of batches may run: they get what others leave. Pure."""

from dataclasses import dataclass

MOST_AT_ONCE = 64


@dataclass(frozen=True)
class Load:
    """What the decision depends on.

    `slots` are those of all replicas that serve, `free` those on which a task could start now. `waiting` interactive
    tasks are in the queue. `ours` lines are in the queue or run, at most `most`.
    """

    slots: int
    free: int
    waiting: int
    ours: int
    most: int


def lines_to_start(load: Load) -> int:
    """Return how many lines to start now.

    One line is always under way, so that its model is loaded and no batch starves. More start only while nobody else
    waits, and one slot of several stays free for the next client.
    """
    first = 0 if load.ours else 1
    if load.waiting:
        return first
    kept = 1 if load.slots > 1 else 0
    return max(first, min(load.free - kept, min(load.most, MOST_AT_ONCE) - load.ours))
