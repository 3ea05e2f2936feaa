"""The waiting tasks of one priority: FIFO, by lane."""

import heapq
from collections.abc import Container, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K")


@dataclass
class PriorityLine(Generic[K]):
    """The waiting tasks of one priority.

    `lanes` holds each lane's tasks in order of arrival, with arrival numbers. `droppable` and `firm` hold the weight of
    each task; `droppable` begins with the least recently attended task, `firm` tasks are never dropped.
    """

    lane_of: dict[K, Hashable] = field(default_factory=dict)
    lanes: dict[Hashable, dict[K, int]] = field(default_factory=dict)
    droppable: dict[K, int] = field(default_factory=dict)
    firm: dict[K, int] = field(default_factory=dict)
    arrivals: int = 0
    returns: int = 0
    weight: int = 0

    def append(self, task: K, lane: Hashable, weight: int, *, firm: bool = False) -> None:
        self.arrivals += 1
        self.lane_of[task] = lane
        self.lanes.setdefault(lane, {})[task] = self.arrivals
        (self.firm if firm else self.droppable)[task] = weight
        self.weight += weight

    def prepend(self, task: K, lane: Hashable, weight: int) -> None:
        """Put `task` before all others, as a firm one. Takes time proportional to the line's length."""
        self.returns += 1
        self.lane_of = {task: lane, **self.lane_of}
        self.lanes[lane] = {task: -self.returns, **self.lanes.get(lane, {})}
        self.firm[task] = weight
        self.weight += weight

    def attend(self, task: K) -> None:
        """Make `task` the last one to be dropped."""
        if task in self.droppable:
            self.droppable[task] = self.droppable.pop(task)

    def remove(self, task: K) -> bool:
        """Return whether `task` was in the line."""
        if task not in self.lane_of:
            return False
        lane = self.lane_of.pop(task)
        self.weight -= (self.firm if task in self.firm else self.droppable).pop(task)
        del self.lanes[lane][task]
        if not self.lanes[lane]:
            del self.lanes[lane]
        return True

    def index(self, task: K) -> int:
        """Return how many tasks of this line are served before `task`."""
        # each admission asks for the newest task: no walk through the line for that
        newest = next(reversed(self.lane_of)) == task
        return len(self.lane_of) - 1 if newest else list(self.lane_of).index(task)

    def in_order(self, skipped: Container[Hashable]) -> Iterator[K]:
        """Iterate in order of arrival. A lane ends once it is in `skipped`, which may change during the iteration."""
        lanes = [_unskipped(lane, members, skipped) for lane, members in self.lanes.items() if lane not in skipped]
        return (task for _number, task in (lanes[0] if len(lanes) == 1 else heapq.merge(*lanes, key=_number)))


def _unskipped(lane: Hashable, members: dict[K, int], skipped: Container[Hashable]) -> Iterator[tuple[int, K]]:
    for task, number in members.items():
        if lane in skipped:
            return
        yield number, task


def _number(numbered: tuple[int, K]) -> int:
    return numbered[0]
