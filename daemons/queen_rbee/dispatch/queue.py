"""The admission queue: bounded, with two priorities, FIFO within each, without starvation. No I/O, no clock.

The queue knows a task by its key and by its lane. Tasks of one lane can run in the same places, so that a search for
the next placeable task skips a whole lane at once.
"""

import heapq
from collections.abc import Container, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

Priority = Literal["interactive", "batch"]
Policy = Literal["drop-lru", "reject-new"]
K = TypeVar("K")

INTERACTIVE_PER_BATCH = 4
"""Interactive tasks served before a waiting batch task: batch keeps a fifth of the slots."""

WEIGHT_LIMIT = 256 << 20
"""Bytes of all waiting prompts together: bounds the queue's memory, besides its capacity."""


@dataclass(frozen=True)
class Admitted(Generic[K]):
    """The new task waits; `dropped` are the tasks that made room for it."""

    dropped: tuple[K, ...] = ()


class QueueFull(Exception):
    """The policy in force leaves no room for the new task."""


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


class AdmissionQueue(Generic[K]):
    """Waiting tasks in the order in which they will be served."""

    def __init__(self, capacity: int, policy: Policy, weight_limit: int = WEIGHT_LIMIT) -> None:
        self.capacity = capacity
        self.policy = policy
        self.weight_limit = weight_limit
        self._interactive, self._batch = PriorityLine[K](), PriorityLine[K]()
        self._lines: dict[Priority, PriorityLine[K]] = {"interactive": self._interactive, "batch": self._batch}
        self._streak = 0
        """Interactive tasks served since the last batch task, while batch tasks waited."""

    def __len__(self) -> int:
        return len(self._interactive.lane_of) + len(self._batch.lane_of)

    def __contains__(self, task: K) -> bool:
        return task in self._interactive.lane_of or task in self._batch.lane_of

    def depth(self, priority: Priority) -> int:
        """Return how many tasks of `priority` wait."""
        return len(self._lines[priority].lane_of)

    def admit(
        self, task: K, priority: Priority, lane: Hashable = None, weight: int = 0, *, firm: bool = False
    ) -> Admitted[K]:
        """Append `task` to its line. Raises QueueFull and changes nothing if there is no room.

        A `firm` task is never dropped, and tasks of either priority are dropped for it.
        """
        dropped = self._victims("interactive" if firm else priority, weight)
        for victim in dropped:
            self.remove(victim)
        self._lines[priority].append(task, lane, weight, firm=firm)
        return Admitted(dropped)

    def restore(self, task: K, priority: Priority, lane: Hashable = None, weight: int = 0) -> None:
        """Append a task that was admitted before a restart, whatever the capacity."""
        self._lines[priority].append(task, lane, weight)

    def put_back(self, task: K, priority: Priority, lane: Hashable = None, weight: int = 0) -> None:
        """Prepend a task that lost its slot, whatever the capacity."""
        self._lines[priority].prepend(task, lane, weight)

    def full(self, weight: int = 0) -> bool:
        """Return whether a new task of `weight` bytes has no room unless others are dropped."""
        return len(self) >= self.capacity or self.weight + weight > self.weight_limit

    @property
    def weight(self) -> int:
        """Bytes of all waiting prompts."""
        return self._interactive.weight + self._batch.weight

    def _victims(self, priority: Priority, weight: int) -> tuple[K, ...]:
        """Return the tasks to drop for a new one: batch tasks first, interactive tasks never for a batch task."""
        number, excess = len(self) + 1 - self.capacity, self.weight + weight - self.weight_limit
        if number <= 0 and excess <= 0:
            return ()
        if self.policy == "reject-new":
            raise QueueFull
        lines: tuple[Priority, ...] = ("batch",) if priority == "batch" else ("batch", "interactive")
        victims: list[K] = []
        for task, its_weight in (item for line in lines for item in self._lines[line].droppable.items()):
            if len(victims) >= number and excess <= 0:
                break
            victims.append(task)
            excess -= its_weight
        if len(victims) < number or excess > 0:
            raise QueueFull
        return tuple(victims)

    def attend(self, task: K) -> None:
        """Record that a client asked for `task`, so that it is dropped last."""
        for line in self._lines.values():
            line.attend(task)

    def remove(self, task: K) -> bool:
        """Return whether `task` was waiting."""
        return self._interactive.remove(task) or self._batch.remove(task)

    def take(self, task: K) -> None:
        """Remove `task` because it is served now. Raises KeyError if it does not wait."""
        batch_waits = bool(self._batch.lane_of)
        if self._interactive.remove(task):
            self._streak = min(self._streak + 1, INTERACTIVE_PER_BATCH) if batch_waits else 0
        elif self._batch.remove(task):
            self._streak = 0
        else:
            raise KeyError(task)

    def order(self, skipped: Container[Hashable] = ()) -> Iterator[K]:
        """Iterate over the waiting tasks in the order of service, as if each could be placed.

        Lanes in `skipped` are passed over; the caller may add to it during the iteration.
        """
        interactive, batch = (self._lines[priority].in_order(skipped) for priority in ("interactive", "batch"))
        streak = self._streak
        while True:
            first, second = (batch, interactive) if streak >= INTERACTIVE_PER_BATCH else (interactive, batch)
            try:
                yield next(first)
                streak = 0 if first is batch else streak + 1
            except StopIteration:
                yield from second
                return

    def first_of_lanes(self) -> Iterator[K]:
        """Iterate over the first task of each lane and priority; interactive ones first."""
        for line in self._lines.values():
            for members in line.lanes.values():
                yield next(iter(members))

    def lane_depths(self) -> Iterator[tuple[K, int]]:
        """Iterate as `first_of_lanes` does, with the number of tasks that wait in the lane with this priority."""
        for line in self._lines.values():
            for members in line.lanes.values():
                yield next(iter(members)), len(members)

    def position(self, task: K) -> int | None:
        """Return how many tasks are served before `task`; None if it does not wait."""
        for priority, line in self._lines.items():
            if task in line.lane_of:
                # each admission asks for the newest task: no walk through the line for that
                newest = next(reversed(line.lane_of)) == task
                return self._tasks_ahead(priority, len(line.lane_of) - 1 if newest else list(line.lane_of).index(task))
        return None

    def next_position(self, priority: Priority) -> int:
        """Return how many tasks would be served before a new one."""
        return self._tasks_ahead(priority, self.depth(priority))

    def _tasks_ahead(self, priority: Priority, index: int) -> int:
        """Return how many tasks `order` yields before the one at `index` of its line."""
        if priority == "interactive":
            return index + min((self._streak + index) // INTERACTIVE_PER_BATCH, self.depth("batch"))
        first = INTERACTIVE_PER_BATCH - self._streak
        return index + min(self.depth("interactive"), first + index * INTERACTIVE_PER_BATCH)
