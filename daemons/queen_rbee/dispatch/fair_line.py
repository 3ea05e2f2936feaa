"""The waiting tasks of one priority where users have keys: each holder's tasks in order, the holders in fair shares.

Tasks without a share come before all others: all of them while there are no keys, then this is a PriorityLine; else
those that lost their slot.
"""

import heapq
import math
from collections.abc import Container, Hashable, Iterator
from itertools import chain
from typing import TypeVar

from queen_rbee.dispatch.priority_line import PriorityLine
from queen_rbee.keys.shares import Flow, Share, Shares, in_shares

K = TypeVar("K")


class FairLine(PriorityLine[K]):
    """`lane_of` and `weight` are of all tasks, the other fields of those without a share. `shares` is common to all
    lines of a queue."""

    def __init__(self, shares: Shares) -> None:
        super().__init__()
        self._shares = shares
        self._lines: dict[str, PriorityLine[K]] = {}
        """The tasks of each holder that has any."""
        self._share_of: dict[K, Share] = {}
        self._advances: dict[str, float] = {}
        """The virtual time that the waiting tasks of each holder take together."""
        self.weights: dict[str, float] = {}
        """The weight of each holder that has tasks here."""

    def append(self, task: K, lane: Hashable, weight: int, *, firm: bool = False, share: Share | None = None) -> None:
        if share is None:
            super().append(task, lane, weight, firm=firm)
            return
        line = self._lines.get(share.holder)
        if line is None:
            line = self._lines[share.holder] = PriorityLine()
            self._advances[share.holder] = 0.0
            self._shares.join(share.holder)
        line.append(task, lane, weight, firm=firm)
        self.lane_of[task] = lane
        self.weight += weight
        self.weights[share.holder] = share.weight
        self._share_of[task] = share
        self._advances[share.holder] += share.advance

    def waiting_of(self, holder: str) -> int:
        """Return how many tasks of `holder` wait here."""
        return len(self._lines[holder].lane_of) if holder in self._lines else 0

    def attend(self, task: K) -> None:
        if share := self._share_of.get(task):
            self._lines[share.holder].attend(task)
        else:
            super().attend(task)

    def serve(self, task: K) -> bool:
        """Remove `task` because it is served, on the account of its holder. Return whether it was in the line."""
        if share := self._share_of.get(task):
            self._shares.served(share)
        return self.remove(task)

    def remove(self, task: K) -> bool:
        share = self._share_of.pop(task, None)
        if share is None:
            return super().remove(task)
        line, holder = self._lines[share.holder], share.holder
        before = line.weight
        line.remove(task)
        self.weight -= before - line.weight
        del self.lane_of[task]
        self._advances[holder] -= share.advance
        if not line.lane_of:
            del self._lines[holder], self._advances[holder], self.weights[holder]
        return True

    def in_order(self, skipped: Container[Hashable]) -> Iterator[K]:
        if not self._lines:
            return super().in_order(skipped)
        flows = (
            Flow(holder, self._shares.time_of(holder), self._with_advance(line, skipped))
            for holder, line in list(self._lines.items())
        )
        return chain(super().in_order(skipped), in_shares(flows))

    def _with_advance(self, line: PriorityLine[K], skipped: Container[Hashable]) -> Iterator[tuple[K, float]]:
        return ((task, self._share_of[task].advance) for task in line.in_order(skipped))

    def first_of_lanes(self) -> Iterator[K]:
        """Iterate over the first task of each lane, of each holder."""
        return (task for task, _number in self.lane_depths())

    def lane_depths(self) -> Iterator[tuple[K, int]]:
        """Iterate as `first_of_lanes` does, with the number of tasks of the holder in that lane."""
        for line in (self, *self._lines.values()):
            for members in line.lanes.values():
                yield next(iter(members)), len(members)

    def index(self, task: K) -> int:
        """As in the base class; an estimate if tasks differ in what they cost."""
        if not self._lines:
            return super().index(task)
        share = self._share_of.get(task)
        if share is None:
            return list(super().in_order(())).index(task)
        return self._index_in_shares(share, self._lines[share.holder].index(task))

    def next_index(self, share: Share | None) -> int:
        """Return how many tasks of this line would be served before a new one."""
        if not self._lines or share is None:
            return len(self.lane_of)
        return self._index_in_shares(share, self.waiting_of(share.holder))

    def _index_in_shares(self, share: Share, own: int) -> int:
        """Return how many tasks are served before the one that has `own` tasks of its holder before it."""
        holder = share.holder
        waiting = self.waiting_of(holder)
        mean = self._advances[holder] / waiting if waiting else 0.0
        begins = max(self._shares.time_of(holder), self._shares.now if not waiting else -math.inf) + own * mean
        ahead = len(self.lane_of) - len(self._share_of) + own
        for other, line in self._lines.items():
            if other != holder:
                number = len(line.lane_of)
                until = (begins - self._shares.time_of(other)) / (self._advances[other] / number)
                ahead += min(number, max(0, math.ceil(until)))
        return ahead

    def droppable_for(self, share: Share | None) -> Iterator[tuple[K, int]]:
        """Iterate over the tasks that may be dropped for a new one, and their weights.

        With a share, these are the tasks of the holders that have the most places for their weight, as long as that is
        more than the new task's holder would have; so a thousand tasks of one key leave room for the first of another.
        """
        if not self._lines or share is None:
            yield from self.droppable.items()
            for line in self._lines.values():
                yield from line.droppable.items()
            return
        yield from self.droppable.items()
        places = {holder: len(line.lane_of) for holder, line in self._lines.items()}
        own = places.get(share.holder, 0) / share.weight
        heap = [
            (-places[holder] / self.weights[holder], holder != share.holder, holder, iter([*line.droppable.items()]))
            for holder, line in self._lines.items()
        ]
        heapq.heapify(heap)
        while heap:
            ratio, other, holder, items = heapq.heappop(heap)
            if other and -ratio <= own:
                return
            for item in items:
                yield item
                heapq.heappush(heap, (ratio + 1 / self.weights[holder], other, holder, items))
                break
