"""What the queen expects of the time to come: owns what was measured, and answers when a task will start and end."""

import time
from collections.abc import Iterable

from queen_rbee.dispatch.estimates import (
    Capacity,
    DrainRate,
    ServiceTimes,
    capacity_of,
    on_time_probability,
    predicted_start_ms,
)
from queen_rbee.pools.candidates import Candidate, Demand
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.task import Task

KEPT = 256
FEW = 64
A_LOOK_S = 100e-6
"""How long a capacity is believed for each replica beyond FEW that it was made of: with thousands of them, making one
anew at each admission would be most of the work."""


class Forecast:
    """Service times of each pool and of all together, and how fast the queue moves."""

    def __init__(self, registry: PoolRegistry) -> None:
        self._registry = registry
        self._all = ServiceTimes()
        self._pools: dict[str, ServiceTimes] = {}
        self._drain = DrainRate()
        self._capacities: dict[Demand, Capacity] = {}
        self._measured = 0
        self._judged = (0, -1.0)
        """The registry's state, and time, that capacities were made at: three are asked for with each admission."""

    def started(self, now: float, backlog: bool) -> None:
        """A task got a slot; `backlog`: others still wait."""
        self._drain.started(now, backlog)

    def ended(self, task: Task) -> None:
        """Only answers that were complete are measured: a cancelled one says nothing about the others."""
        if task.state != "done" or task.started_at is None or task.ended_at is None or task.pool_id is None:
            return
        self._measured += 1
        held_s = task.ended_at - task.started_at
        first_s = (task.first_token_at or task.started_at) - task.started_at
        self._all = self._all.ended(held_s, first_s, task.tokens_out)
        self._pools[task.pool_id] = self._pools.get(task.pool_id, ServiceTimes()).ended(
            held_s, first_s, task.tokens_out
        )

    def times(self, pool_id: str | None) -> ServiceTimes:
        """Of one pool, or of all where nothing is known of it."""
        return self._pools.get(pool_id or "", self._all)

    def capacity(self, demand: Demand) -> Capacity:
        """What serves at present and could serve `demand`."""
        now, change = time.monotonic(), self._registry.replicas.changes + self._measured
        last_change, judged_at = self._judged
        old = change != last_change and now - judged_at >= A_LOOK_S * max(0, len(self._registry.replicas) - FEW)
        if old or len(self._capacities) > KEPT:
            self._capacities.clear()
        if not self._capacities:
            self._judged = change, now
        if demand not in self._capacities:
            self._capacities[demand] = self._made_of(self._registry.replicas.suitable(demand))
        return self._capacities[demand]

    def _made_of(self, replicas: Iterable[Candidate]) -> Capacity:
        """Of those that serve. Pool by pool, since a pool's replicas are judged alike: there may be thousands."""
        pools: dict[str, tuple[int, int]] = {}
        for found in replicas:
            if found.serves:
                total, free = pools.get(found.pool_id, (0, 0))
                unused = found.slots_total - found.leased
                pools[found.pool_id] = total + found.slots_total, free + (unused if unused > 0 else 0)
        return capacity_of((total, free, self.times(pool_id)) for pool_id, (total, free) in pools.items())

    def start_ms(self, demand: Demand, position: int) -> int | None:
        """Milliseconds until a task with `position` others before it will probably start; None while nothing serves it,
        since nobody knows when that will be."""
        return predicted_start_ms(position, self.capacity(demand))

    def on_time(self, task: Task, position: int, now: float) -> float:
        """The probability that a waiting task ends before its deadline; while nothing serves it, as if it could start
        at once, which is the most it can be."""
        position = position if self.capacity(task.demand).slots_total else -1
        times = self.times(task.demand.pin)
        tokens = times.answer(task.request.expected_tokens, task.request.max_tokens)
        return on_time_probability(position, self.capacity(task.demand), times, tokens, task.deadline - now)

    def late_s(self, task: Task, position: int, now: float) -> float:
        """By how many seconds a task will probably miss its deadline."""
        wait_s = (self.start_ms(task.demand, position) or 0) / 1000
        times = self.times(task.demand.pin)
        tokens = times.answer(task.request.expected_tokens, task.request.max_tokens)
        return max(0.0, now + wait_s + times.expected_s(tokens) - task.deadline)

    def gap_s(self, now: float) -> float:
        """Seconds between two places in the queue that come free."""
        return self._drain.gap_s(now, self.capacity(Demand()))
