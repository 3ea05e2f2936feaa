"""The admission queue: bounded, two priorities, FIFO inside each, and neither starves.

A plain data structure without I/O or clock: the caller passes the time. Tasks are known here by an id alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Priority = Literal["interactive", "batch"]
Policy = Literal["drop-lru", "reject-new"]
K = TypeVar("K")

INTERACTIVE_IN_A_ROW = 4
"""So many interactive tasks go before a batch task that waits: interactive comes first, batch keeps a fifth."""


@dataclass(frozen=True)
class Admitted(Generic[K]):
    """The newcomer waits; `dropped` is the task that made room for it, if one had to."""

    dropped: K | None = None


class QueueFull(Exception):
    """There is no room for the newcomer under the policy in force."""


class AdmissionQueue(Generic[K]):
    """Waiting tasks in the order in which they will be served."""

    def __init__(self, capacity: int, policy: Policy) -> None:
        self.capacity = capacity
        self.policy = policy
        self._waiting: dict[Priority, dict[K, float]] = {"interactive": {}, "batch": {}}
        self._streak = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __contains__(self, task: K) -> bool:
        return any(task in waiting for waiting in self._waiting.values())

    def depth(self, priority: Priority) -> int:
        """How many tasks of `priority` wait."""
        return len(self._waiting[priority])

    def admit(self, task: K, priority: Priority, now: float) -> Admitted[K]:
        """Put `task` at the end of its line. Raises QueueFull."""
        dropped = None
        if len(self) >= self.capacity:
            dropped = self._victim(priority)
            if dropped is None:
                raise QueueFull
            self.remove(dropped)
        self._waiting[priority][task] = now
        return Admitted(dropped)

    def _victim(self, newcomer: Priority) -> K | None:
        """Who gives way under drop-lru: batch first, and an interactive task never to a batch one."""
        if self.policy == "reject-new":
            return None
        lines: tuple[Priority, ...] = ("batch",) if newcomer == "batch" else ("batch", "interactive")
        for priority in lines:
            if waiting := self._waiting[priority]:
                return min(waiting, key=waiting.__getitem__)
        return None

    def attend(self, task: K, now: float) -> None:
        """Somebody has asked for `task`, so that it is not the first to be dropped."""
        for waiting in self._waiting.values():
            if task in waiting:
                waiting[task] = now

    def remove(self, task: K) -> bool:
        """Take `task` out wherever it stands; whether it was there."""
        return any(waiting.pop(task, None) is not None for waiting in self._waiting.values())

    def take(self, task: K) -> None:
        """`task` is served now. Raises KeyError when it does not wait."""
        batch_waits = bool(self._waiting["batch"])
        if self._waiting["interactive"].pop(task, None) is not None:
            self._streak = min(self._streak + 1, INTERACTIVE_IN_A_ROW) if batch_waits else 0
        else:
            del self._waiting["batch"][task]
            self._streak = 0

    def order(self) -> Iterator[K]:
        """The waiting tasks in the order in which they would be served if each could be placed."""
        interactive, batch = iter(self._waiting["interactive"]), iter(self._waiting["batch"])
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
        for priority, waiting in self._waiting.items():
            if task in waiting:
                newest = next(reversed(waiting)) == task  # asked for at each admission: no walk through the line
                return self._ahead(priority, len(waiting) - 1 if newest else list(waiting).index(task))
        return None

    def _ahead(self, priority: Priority, rank: int) -> int:
        """How many go before the task at `rank` of its line, as `order` has it."""
        if priority == "interactive":
            return rank + min((self._streak + rank) // INTERACTIVE_IN_A_ROW, self.depth("batch"))
        first = INTERACTIVE_IN_A_ROW - self._streak
        return rank + min(self.depth("interactive"), first + rank * INTERACTIVE_IN_A_ROW)
