"""Weighted fair shares of the slots: whose task is next. A pure decision, and the account that it needs.

Each holder has a virtual time that advances by the cost of its tasks, divided by its weight; the waiting holder with
the smallest is next. A holder that had nothing waiting begins at the time of those that are served now: it neither
waits behind the tasks that others have queued before, nor has it saved anything up. (Start-time fair queueing, with
the start assigned when a task is chosen, as in stride scheduling.)
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")

MIN_COST = 16
"""Tokens. A task costs this at least: the slot is held, however short the answer."""
MAX_IDLE = 4096
"""Holders that are remembered while nothing of theirs waits."""


@dataclass(frozen=True)
class Share:
    """To whom a task belongs, with which weight, and its expected cost in tokens."""

    holder: str
    weight: float = 1.0
    cost: float = float(MIN_COST)

    @property
    def advance(self) -> float:
        """How much virtual time the task takes."""
        return max(self.cost, MIN_COST) / self.weight


@dataclass(frozen=True)
class Flow(Generic[K]):
    """The waiting tasks of one holder in order, each with its `advance`, and the holder's virtual time."""

    holder: str
    time: float
    tasks: Iterator[tuple[K, float]]


def in_shares(flows: Iterable[Flow[K]]) -> Iterator[K]:
    """Iterate over all tasks in the order of service, as if each were served when it is its turn."""
    heap: list[tuple[float, str, int, K, float, Iterator[tuple[K, float]]]] = []
    for number, flow in enumerate(flows):
        for task, advance in flow.tasks:
            heap.append((flow.time, flow.holder, number, task, advance, flow.tasks))
            break
    heapq.heapify(heap)
    while heap:
        time, holder, number, task, advance, tasks = heap[0]
        yield task
        for following, its_advance in tasks:
            heapq.heapreplace(heap, (time + advance, holder, number, following, its_advance, tasks))
            break
        else:
            heapq.heappop(heap)


class Shares:
    """The virtual time of each holder. Bounded: holders that are not ahead of the others are forgotten when idle."""

    def __init__(self, limit: int = MAX_IDLE) -> None:
        self._limit = limit
        self._times: dict[str, float] = {}
        self.now = 0.0
        """The virtual time at which the last task was served."""

    def __len__(self) -> int:
        return len(self._times)

    def time_of(self, holder: str) -> float:
        return self._times.get(holder, self.now)

    def join(self, holder: str) -> None:
        """Call when a task of `holder` begins to wait and no other of its tasks does."""
        if len(self._times) >= self._limit:
            self._times = {name: time for name, time in self._times.items() if time > self.now}
        self._times[holder] = max(self.time_of(holder), self.now)

    def served(self, share: Share) -> None:
        """Charge a task that is served now."""
        self.now = max(self.now, self.time_of(share.holder))
        self._times[share.holder] = self.time_of(share.holder) + share.advance

    def correct(self, share: Share, cost: float) -> None:
        """Charge what a served task has cost really, instead of what was expected."""
        if share.holder in self._times:
            difference = max(cost, MIN_COST) - max(share.cost, MIN_COST)
            self._times[share.holder] += difference / share.weight
