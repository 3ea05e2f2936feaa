"""The admission queue: bounded, with two priorities, without starvation. No I/O, no clock.

Within a priority tasks are served in order of arrival or, where users have keys, in weighted fair shares.

The queue knows a task by its key and by its lane. Tasks of one lane can run in the same places, so that a search for
the next placeable task skips a whole lane at once.
"""

from collections.abc import Container, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from queen_rbee.dispatch.fair_line import FairLine
from queen_rbee.keys.shares import Share, Shares

Priority = Literal["interactive", "batch"]
Policy = Literal["drop-lru", "reject-new"]
K = TypeVar("K")

INTERACTIVE_PER_BATCH = 4
"""Interactive tasks served before a waiting batch task: batch keeps a fifth of the slots."""

PLACES_PER_NEWCOMER = 8
"""Under reject-new, one of this many places is kept for tasks of keys that have none waiting."""

WEIGHT_LIMIT = 256 << 20
"""Bytes of all waiting prompts together: bounds the queue's memory, besides its capacity."""


@dataclass(frozen=True)
class Admitted(Generic[K]):
    """The new task waits; `dropped` are the tasks that made room for it."""

    dropped: tuple[K, ...] = ()


class QueueFull(Exception):
    """The policy in force leaves no room for the new task."""


class AdmissionQueue(Generic[K]):
    """Waiting tasks in the order in which they will be served."""

    def __init__(
        self, capacity: int, policy: Policy, weight_limit: int = WEIGHT_LIMIT, shares: Shares | None = None
    ) -> None:
        self.capacity = capacity
        self.policy = policy
        self.weight_limit = weight_limit
        shares = Shares() if shares is None else shares
        self._interactive, self._batch = FairLine[K](shares), FairLine[K](shares)
        self._lines: dict[Priority, FairLine[K]] = {"interactive": self._interactive, "batch": self._batch}
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
        self,
        task: K,
        priority: Priority,
        lane: Hashable = None,
        weight: int = 0,
        *,
        firm: bool = False,
        share: Share | None = None,
    ) -> Admitted[K]:
        """Append `task` to its line. Raises QueueFull and changes nothing if there is no room.

        A `firm` task is never dropped, and tasks of either priority are dropped for it. Tasks with a `share` also
        share the places of the queue: see `_has_place` and `FairLine.droppable_for`.
        """
        if share and self.policy == "reject-new" and not self._has_place(share):
            raise QueueFull
        dropped = self._victims("interactive" if firm else priority, weight, share)
        for victim in dropped:
            self.remove(victim)
        self._lines[priority].append(task, lane, weight, firm=firm, share=share)
        return Admitted(dropped)

    def _has_place(self, share: Share) -> bool:
        """Return whether the holder of `share` may have another place. Nobody is dropped for a newcomer under
        reject-new, so that some places are kept for holders that have none."""
        own = sum(line.waiting_of(share.holder) for line in self._lines.values())
        if not own:
            return len(self) < self.capacity
        places = self.capacity - -(-self.capacity // PLACES_PER_NEWCOMER)
        return own < max(1, places * self.fraction(share))

    def fraction(self, share: Share | None) -> float:
        """Return the part of the slots that the holder of `share` gets while all that wait now go on waiting."""
        if share is None:
            return 1.0
        weights = {share.holder: share.weight}
        for line in self._lines.values():
            weights |= line.weights
        return share.weight / sum(weights.values())

    def restore(
        self, task: K, priority: Priority, lane: Hashable = None, weight: int = 0, *, share: Share | None = None
    ) -> None:
        """Append a task that was admitted before a restart, whatever the capacity."""
        self._lines[priority].append(task, lane, weight, share=share)

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

    def _victims(self, priority: Priority, weight: int, share: Share | None = None) -> tuple[K, ...]:
        """Return the tasks to drop for a new one: batch tasks first, interactive tasks never for a batch task."""
        number, excess = len(self) + 1 - self.capacity, self.weight + weight - self.weight_limit
        if number <= 0 and excess <= 0:
            return ()
        if self.policy == "reject-new":
            raise QueueFull
        lines: tuple[Priority, ...] = ("batch",) if priority == "batch" else ("batch", "interactive")
        victims: list[K] = []
        for task, its_weight in (item for line in lines for item in self._lines[line].droppable_for(share)):
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
        if self._interactive.serve(task):
            self._streak = min(self._streak + 1, INTERACTIVE_PER_BATCH) if batch_waits else 0
        elif self._batch.serve(task):
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
            yield from line.first_of_lanes()

    def lane_depths(self) -> Iterator[tuple[K, int]]:
        """Iterate as `first_of_lanes` does, with the number of tasks that wait in the lane with this priority."""
        for line in self._lines.values():
            yield from line.lane_depths()

    def position(self, task: K) -> int | None:
        """Return how many tasks are served before `task`; None if it does not wait."""
        for priority, line in self._lines.items():
            if task in line.lane_of:
                return self._tasks_ahead(priority, line.index(task))
        return None

    def next_position(self, priority: Priority, share: Share | None = None) -> int:
        """Return how many tasks would be served before a new one."""
        return self._tasks_ahead(priority, self._lines[priority].next_index(share))

    def _tasks_ahead(self, priority: Priority, index: int) -> int:
        """Return how many tasks `order` yields before the one at `index` of its line."""
        if priority == "interactive":
            return index + min((self._streak + index) // INTERACTIVE_PER_BATCH, self.depth("batch"))
        first = INTERACTIVE_PER_BATCH - self._streak
        return index + min(self.depth("interactive"), first + index * INTERACTIVE_PER_BATCH)
