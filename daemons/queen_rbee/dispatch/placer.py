"""Find replicas for tasks: for those that wait in the queue, and for running ones that lost theirs."""

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Protocol

from llama_orch.bell import Bell
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.pools.candidates import Candidate, Demand, ReplicaKey
from queen_rbee.pools.placement import pick
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.strategies import StrategyName
from queen_rbee.prefixes.routing import PrefixRouting, Route
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.tasks.task import Task


class Placer(Protocol):
    """Finds another place for a running task that lost its own."""

    @property
    def queue_depth(self) -> int: ...

    async def other_replica(self, task: Task) -> Candidate | None:
        """Lease a slot of a replica that is not in the task's `place.excluded`, if one is free."""
        ...

    def requeue(self, task: Task) -> None:
        """Put `task` before all other waiting tasks."""
        ...


class QueuePlacer:
    """Chooses replicas by the configured strategy. Owns the deadlines of waiting tasks; `bell` wakes the dispatcher."""

    def __init__(
        self,
        queue: AdmissionQueue[Task],
        registry: PoolRegistry,
        sessions: Sessions,
        strategy: StrategyName,
        prefixes: PrefixRouting,
        bell: Bell,
    ) -> None:
        self._queue = queue
        self._registry = registry
        self._sessions = sessions
        self._strategy = strategy
        self._prefixes = prefixes
        self._bell = bell
        self._numbers = count()
        self._deadlines: list[tuple[float, int, Task]] = []
        """A heap; tasks that do not wait any more are removed when they come up."""
        self._arrivals: list[Task] = []
        self.placements = 0
        """Placements so far; also the round-robin counter."""

    @property
    def queue_depth(self) -> int:
        return len(self._queue)

    def admitted(self, task: Task) -> None:
        """Call when `task` has entered the queue. A task with an `answer` is started by its client: see Dispatcher."""
        if (until := task.waits_until) < float("inf"):
            heapq.heappush(self._deadlines, (until, next(self._numbers), task))
        if task.answer is None:
            self.waits(task)

    def waits(self, task: Task) -> None:
        """Let the dispatcher find a slot for `task`, which is in the queue."""
        self._arrivals.append(task)
        self._bell.ring()

    def requeue(self, task: Task) -> None:
        self._queue.put_back(task, task.request.priority, task.demand, task.size)
        self.admitted(task)
        if task.answer:
            self.waits(task)

    async def other_replica(self, task: Task) -> Candidate | None:
        while True:
            suitable = self._registry.replicas.suitable(task.demand)
            candidates = [candidate for candidate in suitable if candidate.key not in task.place.excluded]
            target = pick(candidates, task.demand, self._strategy, self.placements)
            if target is None or await self._registry.lease(target.key):
                return target

    async def place_next(self, blocked: set[Demand]) -> tuple[Task, Candidate] | None:
        """Lease a slot for the first waiting task that can start now; None if no other can.

        The task is still in the queue: take it from there before awaiting anything. Demands without a free slot are
        added to `blocked`, and are passed over.
        """
        while self._registry.replicas.slots_open and (choice := self._choose(blocked)):
            task, target, route = choice
            if not await self._registry.lease(target.key):
                continue
            if task not in self._queue:  # it has ended meanwhile
                self._registry.release(target.key)
                continue
            self.placements += 1
            if route:
                self._prefixes.record(route, target.key)
            return task, target
        return None

    def _choose(self, blocked: set[Demand]) -> tuple[Task, Candidate, Route | None] | None:
        for task in self._queue.order(blocked):
            if task.demand in blocked:
                continue
            suitable = self._registry.replicas.suitable(task.demand)
            affinity = self._affinity(task)
            route = None if affinity else self._prefixes.route(task, suitable)
            preferred = route.replica if route else affinity
            if target := pick(suitable, task.demand, self._strategy, self.placements, preferred):
                return task, target, route
            blocked.add(task.demand)
        return None

    def _affinity(self, task: Task) -> ReplicaKey | None:
        session_id = task.request.session_id
        if session_id is None or task.request.kv_hint == "cold":
            return None
        return self._sessions.affinity(session_id)

    def take_unplaced_arrivals(self) -> Iterator[Task]:
        """Yield the tasks that entered the queue since the last call and still wait."""
        arrivals, self._arrivals = self._arrivals, []
        return (task for task in arrivals if task in self._queue)

    def take_expired(self, now: float) -> Iterator[Task]:
        """Yield the tasks that have waited until their deadline, or for as long as their clients allow."""
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2] not in self._queue):
            task = heapq.heappop(self._deadlines)[2]
            if task in self._queue and task.waits_until <= now:
                yield task

    @property
    def next_deadline(self) -> float:
        """The next deadline of a waiting task, on trio's clock; infinity if there is none."""
        return self._deadlines[0][0] if self._deadlines else float("inf")
