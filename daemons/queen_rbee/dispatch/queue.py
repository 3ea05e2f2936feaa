"""The admission queue: bounded, two priorities, FIFO inside each, and neither starves.

A plain data structure without I/O or clock. Tasks are known here by an id alone, and by the lane they stand in: tasks
of one lane can run in just the same places, so that a look for the next one passes over a whole lane at once.
"""

import heapq
from collections.abc import Container, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

Priority = Literal["interactive", "batch"]
Policy = Literal["drop-lru", "reject-new"]
K = TypeVar("K")

INTERACTIVE_IN_A_ROW = 4
"""So many interactive tasks go before a batch task that waits: interactive comes first, batch keeps a fifth."""

WEIGHT_LIMIT = 256 << 20
"""Bytes that all waiting prompts may have together: what the queue's memory is bounded by, beside its capacity."""


@dataclass(frozen=True)
class Admitted(Generic[K]):
    """The newcomer waits; `dropped` are the tasks that made room for it."""

    dropped: tuple[K, ...] = ()


class QueueFull(Exception):
    """There is no room for the newcomer under the policy in force."""


@dataclass
class Line(Generic[K]):
    """Those of one priority: `lanes` in the order of arrival, with the number of each arrival; `attended` begins with
    the one that nobody has asked for longest, and has the weight of each; `firm` has those that give way to nobody."""

    place: dict[K, Hashable] = field(default_factory=dict)
    lanes: dict[Hashable, dict[K, int]] = field(default_factory=dict)
    attended: dict[K, int] = field(default_factory=dict)
    firm: dict[K, int] = field(default_factory=dict)
    arrivals: int = 0
    returns: int = 0
    weight: int = 0

    def add(self, task: K, lane: Hashable, weight: int, *, firm: bool = False) -> None:
        """`task` stands at the end."""
        self.arrivals += 1
        self.place[task] = lane
        self.lanes.setdefault(lane, {})[task] = self.arrivals
        (self.firm if firm else self.attended)[task] = weight
        self.weight += weight

    def add_first(self, task: K, lane: Hashable, weight: int) -> None:
        """`task` stands before all others, and gives way to nobody. As long as the line is, so long it takes."""
        self.returns += 1
        self.place = {task: lane, **self.place}
        self.lanes[lane] = {task: -self.returns, **self.lanes.get(lane, {})}
        self.firm[task] = weight
        self.weight += weight

    def attend(self, task: K) -> None:
        """`task` becomes the last to be dropped."""
        if task in self.attended:
            self.attended[task] = self.attended.pop(task)

    def remove(self, task: K) -> bool:
        """Whether it was there."""
        if task not in self.place:
            return False
        lane = self.place.pop(task)
        self.weight -= (self.firm if task in self.firm else self.attended).pop(task)
        del self.lanes[lane][task]
        if not self.lanes[lane]:
            del self.lanes[lane]
        return True

    def walk(self, skipped: Container[Hashable]) -> Iterator[K]:
        """In order of arrival; a lane ends as soon as it is `skipped`, which may come about on the way."""
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
        self._lines: dict[Priority, Line[K]] = {"interactive": Line(), "batch": Line()}
        self._streak = 0

    def __len__(self) -> int:
        return self.depth("interactive") + self.depth("batch")

    def __contains__(self, task: K) -> bool:
        return any(task in line.place for line in self._lines.values())

    def depth(self, priority: Priority) -> int:
        """How many tasks of `priority` wait."""
        return len(self._lines[priority].place)

    def admit(
        self, task: K, priority: Priority, lane: Hashable = None, weight: int = 0, *, firm: bool = False
    ) -> Admitted[K]:
        """Put `task` at the end of its line. Raises QueueFull, and then nothing has changed.

        A `firm` one is never dropped, and other tasks of either priority make room for it.
        """
        dropped = self._victims("interactive" if firm else priority, weight)
        for victim in dropped:
            self.remove(victim)
        self._lines[priority].add(task, lane, weight, firm=firm)
        return Admitted(dropped)

    def restore(self, task: K, priority: Priority, lane: Hashable = None, weight: int = 0) -> None:
        """As `admit`, for a task that was admitted before a restart: there is always room."""
        self._lines[priority].add(task, lane, weight)

    def put_back(self, task: K, priority: Priority, lane: Hashable = None, weight: int = 0) -> None:
        """As `restore`, for a task that has lost its place: it goes before all others of its priority, as it did."""
        self._lines[priority].add_first(task, lane, weight)

    def full(self, weight: int = 0) -> bool:
        """Whether a newcomer of `weight` finds no room."""
        return len(self) >= self.capacity or self.weight + weight > self.weight_limit

    @property
    def weight(self) -> int:
        """What all waiting tasks weigh together."""
        return sum(line.weight for line in self._lines.values())

    def _victims(self, newcomer: Priority, weight: int) -> tuple[K, ...]:
        """Who gives way under drop-lru to a `newcomer` of that rank: batch first, an interactive one to no batch."""
        number, heavy = len(self) + 1 - self.capacity, self.weight + weight - self.weight_limit
        if self.policy == "reject-new" and (number > 0 or heavy > 0):
            raise QueueFull
        lines: tuple[Priority, ...] = ("batch",) if newcomer == "batch" else ("batch", "interactive")
        found: list[K] = []
        for task, its_weight in (item for priority in lines for item in self._lines[priority].attended.items()):
            if len(found) >= number and heavy <= 0:
                break
            found.append(task)
            heavy -= its_weight
        if len(found) < number or heavy > 0:
            raise QueueFull
        return tuple(found)

    def attend(self, task: K) -> None:
        """Somebody has asked for `task`, so that it is not the first to be dropped."""
        for line in self._lines.values():
            line.attend(task)

    def remove(self, task: K) -> bool:
        """Take `task` out wherever it stands; whether it was there."""
        return any(line.remove(task) for line in self._lines.values())

    def take(self, task: K) -> None:
        """`task` is served now. Raises KeyError when it does not wait."""
        batch_waits = bool(self.depth("batch"))
        if self._lines["interactive"].remove(task):
            self._streak = min(self._streak + 1, INTERACTIVE_IN_A_ROW) if batch_waits else 0
        elif self._lines["batch"].remove(task):
            self._streak = 0
        else:
            raise KeyError(task)

    def order(self, skipped: Container[Hashable] = ()) -> Iterator[K]:
        """The waiting tasks in the order in which they would be served if each could be placed.

        Lanes that are `skipped`, from the start or by the caller on the way, are passed over.
        """
        interactive, batch = (self._lines[priority].walk(skipped) for priority in ("interactive", "batch"))
        streak = self._streak
        while True:
            first, second = (batch, interactive) if streak >= INTERACTIVE_IN_A_ROW else (interactive, batch)
            try:
                yield next(first)
                streak = 0 if first is batch else streak + 1
            except StopIteration:
                yield from second
                return

    def position(self, task: K) -> int | None:
        """How many tasks go before `task`, or None when it does not wait."""
        for priority, line in self._lines.items():
            if task in line.place:
                newest = next(reversed(line.place)) == task  # asked for at each admission: no walk through the line
                return self._ahead(priority, len(line.place) - 1 if newest else list(line.place).index(task))
        return None

    def next_position(self, priority: Priority) -> int:
        """How many tasks would go before a newcomer."""
        return self._ahead(priority, self.depth(priority))

    def _ahead(self, priority: Priority, rank: int) -> int:
        """How many go before the task at `rank` of its line, as `order` has it."""
        if priority == "interactive":
            return rank + min((self._streak + rank) // INTERACTIVE_IN_A_ROW, self.depth("batch"))
        first = INTERACTIVE_IN_A_ROW - self._streak
        return rank + min(self.depth("interactive"), first + rank * INTERACTIVE_IN_A_ROW)
