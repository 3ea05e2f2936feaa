"""Predicts when tasks start and end, from measured service times, the replicas that are ready, and loads of models."""

from collections.abc import Callable

from queen_rbee.dispatch.estimates import (
    Arrival,
    Capacity,
    DrainRate,
    ServiceTimes,
    capacity_of,
    on_time_probability,
    predicted_start_ms,
)
from queen_rbee.dispatch.ttl_cache import TtlCache
from queen_rbee.pools.candidates import ANY, Demand
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.task import Task

MAX_CACHED_DEMANDS = 256
UNCACHED_REPLICAS = 64
CACHED_S_PER_REPLICA = 100e-6
"""Each replica beyond UNCACHED_REPLICAS lets a capacity stay cached this much longer: with thousands of replicas,
computing it for each admission, which asks three times, would be most of the work."""


class Forecast:
    """Owns the service times of each pool and of all pools together, and the queue's drain rate."""

    def __init__(self, registry: PoolRegistry) -> None:
        self._registry = registry
        self._all_pools = ServiceTimes()
        self._pools: dict[str, ServiceTimes] = {}
        self._drain = DrainRate()
        self._measured = 0
        self.arrival: Callable[[Demand], Arrival | None] = lambda _demand: None
        """Returns when a model that serves a demand will be loaded, if that can be told."""
        self._capacities: TtlCache[Demand, Capacity] = TtlCache(
            self._current_capacity,
            version=lambda: registry.replicas.changes + self._measured,
            min_age_s=lambda: CACHED_S_PER_REPLICA * max(0, len(registry.replicas) - UNCACHED_REPLICAS),
            max_entries=MAX_CACHED_DEMANDS,
        )

    def record_start(self, now: float, backlog: bool) -> None:
        """Record that a task got a slot. `backlog`: other tasks still wait."""
        self._drain.record_start(now, backlog)

    def record_end(self, task: Task) -> None:
        """Record a task that has ended. Only complete answers count: a cancelled one says nothing about others."""
        times, pool_id = task.measurements, task.place.pool_id
        if task.state != "done" or times.started_at is None or times.ended_at is None or pool_id is None:
            return
        self._measured += 1
        held_s = times.ended_at - times.started_at
        first_s = (times.first_token_at or times.started_at) - times.started_at
        self._all_pools = self._all_pools.with_task(held_s, first_s, times.tokens_out)
        self._pools[pool_id] = self._pools.get(pool_id, ServiceTimes()).with_task(held_s, first_s, times.tokens_out)

    def times(self, pool_id: str | None) -> ServiceTimes:
        """Return the service times of a pool, or those of all pools if it has none yet."""
        return self._pools.get(pool_id or "", self._all_pools)

    def capacity(self, demand: Demand) -> Capacity:
        """Return the slots of ready replicas that can serve `demand`."""
        return self._capacities.get(demand)

    def _current_capacity(self, demand: Demand) -> Capacity:
        # added up per pool, since the replicas of a pool share service times: there may be thousands
        pools: dict[str, tuple[int, int]] = {}
        for replica in self._registry.replicas.suitable(demand):
            if replica.serves:
                total, free = pools.get(replica.pool_id, (0, 0))
                unused = replica.slots_total - replica.leased
                pools[replica.pool_id] = total + replica.slots_total, free + (unused if unused > 0 else 0)
        return capacity_of((total, free, self.times(pool_id)) for pool_id, (total, free) in pools.items())

    def start_ms(self, demand: Demand, position: int) -> int | None:
        """Return in how many milliseconds a task with `position` tasks ahead starts.

        This includes the time until its model is loaded. None while nothing serves it and that time is not known.
        """
        capacity = self.capacity(demand)
        if capacity.slots_total or (arrival := self.arrival(demand)) is None:
            return predicted_start_ms(position, capacity)
        loaded = capacity_of([(arrival.slots, arrival.slots, self.times(arrival.pool_id))])
        return predicted_start_ms(position, loaded, arrival.in_s)

    def on_time(self, task: Task, position: int, now: float) -> float:
        """Return the probability that a waiting task meets its deadline.

        While nothing serves the task, this is the upper bound: as if it could start at once.
        """
        capacity = self.capacity(task.demand)
        times = self.times(task.demand.pin)
        tokens = times.expected_tokens(task.request.expected_tokens, task.request.max_tokens)
        position = position if capacity.slots_total else -1
        return on_time_probability(position, capacity, times, tokens, task.deadline - now)

    def late_s(self, task: Task, position: int, now: float) -> float:
        """Return by how many seconds a task will probably miss its deadline; 0 if it meets it."""
        wait_s = (self.start_ms(task.demand, position) or 0) / 1000
        times = self.times(task.demand.pin)
        tokens = times.expected_tokens(task.request.expected_tokens, task.request.max_tokens)
        return max(0.0, now + wait_s + times.expected_s(tokens) - task.deadline)

    def gap_s(self, now: float) -> float:
        """Return the mean time between two tasks that leave the queue, in seconds."""
        return self._drain.gap_s(now, self.capacity(ANY))
