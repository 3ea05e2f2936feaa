"""The dispatcher: gives waiting tasks to free slots.

One loop owns the queue. A lease is taken in the same turn in which a task leaves it, and is `runs`'s from there on.
"""

import heapq
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from functools import partial
from itertools import count

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.errors import ErrorCode
from llama_orch.engines.wire.adapter import EngineAdapter
from llama_orch.service.watchdog import Pulse
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.dispatch.circuits import Circuits
from queen_rbee.dispatch.estimates import backoff_ms
from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.health_checks import is_well
from queen_rbee.dispatch.hop import DIRECT, Hop
from queen_rbee.dispatch.patience import Patience
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.dispatch.runs import Runs
from queen_rbee.dispatch.silence import LIMITS, Limits
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate, Demand
from queen_rbee.pools.placement import pick
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.strategies import StrategyName
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.task import CancelReason, Task

LOOK_S = 1.0
"""So often it is asked whether anything serves the tasks that wait."""
POOL_WAIT_S = 600.0


@dataclass
class Dispatcher:
    """Everything that decides where a task runs; `run` is its loop."""

    queue: AdmissionQueue[Task]
    registry: PoolRegistry
    accounting: Accounting
    adapters: Mapping[str, EngineAdapter]
    strategy: StrategyName
    bell: Bell
    limits: InitVar[Limits] = LIMITS
    hop: InitVar[Hop] = DIRECT
    pool_wait_s: InitVar[float] = POOL_WAIT_S
    turn: int = 0

    def __post_init__(self, limits: Limits, hop: Hop, pool_wait_s: float) -> None:
        self.circuits = Circuits(self.registry, self.metrics, partial(is_well, hop=hop, metrics=self.metrics))
        self.patience: Patience[Demand] = Patience(pool_wait_s)
        self.runs = Runs(
            self.registry,
            self.accounting,
            self.adapters,
            self.circuits,
            waiting=self.queue.__len__,
            elsewhere=self._elsewhere,
            put_back=self._put_back,
            limits=limits,
            hop=hop,
            pool_wait_s=pool_wait_s,
        )
        self._idled = trio.Event()
        self._dated: list[tuple[float, int, Task]] = []
        self._numbers = count()
        self._newcomers: list[Task] = []
        self._look_at = float("-inf")

    @property
    def book(self) -> TaskBook:
        """Every task that is known."""
        return self.accounting.book

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.queue and not self.registry.leased

    @property
    def metrics(self) -> Metrics:
        """The queen's series."""
        return self.accounting.metrics

    @property
    def forecast(self) -> Forecast:
        """What is expected of the time to come."""
        return self.accounting.forecast

    async def run(self, pulse: Pulse, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dispatch for ever. Running tasks live in a nursery of its own, ended with it."""
        async with trio.open_nursery() as running:
            task_status.started()
            while True:
                self._expire()
                for replica in self.circuits.due(trio.current_time()):
                    running.start_soon(self.circuits.check, replica)
                for task, target in self._placements():
                    self._start(task, target)
                    running.start_soon(self.runs.serve, task)
                self._count_unplaced()
                self._give_up()
                if self.idle:
                    self._idled.set()
                await self._rest(pulse)

    async def _rest(self, pulse: Pulse) -> None:
        """Wait until something has changed, but not beyond the next deadline of a waiting task or a health check."""
        pulse.beat()
        deadline = min(self._dated[0][0] if self._dated else float("inf"), self.circuits.next_check)
        deadline = min(deadline, self._look_at if self.queue else float("inf"))
        await self.bell.wait(min(pulse.interval_s, max(0.0, deadline - trio.current_time())))

    def _placements(self) -> list[tuple[Task, Candidate]]:
        """Who may start now, and where; each has its slot from here on."""
        found: list[tuple[Task, Candidate]] = []
        hopeless: set[Demand] = set()
        for task in self.queue.order(hopeless) if self.registry.replicas.slots_open else ():
            if task.demand in hopeless:
                continue
            suitable = self.registry.replicas.suitable(task.demand)
            target = pick(suitable, task.demand, self.strategy, self.turn, self._affinity(task))
            if target is None:
                hopeless.add(task.demand)
                continue
            self.turn += 1
            self.registry.lease(target.key)
            found.append((task, target))
            if not self.registry.replicas.slots_open:
                break
        return found

    def _affinity(self, task: Task) -> tuple[str, str] | None:
        session_id = task.request.session_id
        if session_id is None or task.request.kv_hint == "cold":
            return None
        return self.accounting.sessions.affinity(session_id)

    def _start(self, task: Task, target: Candidate) -> None:
        now = trio.current_time()
        self.queue.take(task)
        self.forecast.started(now, bool(self.queue))
        self.runs.begin(task, target, now)
        self.metrics.placed(task, target, len(self.registry.replicas))

    def _elsewhere(self, task: Task) -> Candidate | None:
        """A replica for a task that those in its `refused_by` have not taken; each is tried once."""
        candidates = [c for c in self.registry.replicas.suitable(task.demand) if c.key not in task.refused_by]
        return pick(candidates, task.demand, self.strategy, self.turn)

    def _put_back(self, task: Task) -> None:
        """`task` waits for another place, before all others."""
        self.queue.put_back(task, task.request.priority, task.demand, task.size)
        self.admitted(task)

    def admitted(self, task: Task) -> None:
        """`task` waits now: look for a place for it, and keep its deadline in mind if it has one."""
        if task.request.deadline_ms:
            heapq.heappush(self._dated, (task.deadline, next(self._numbers), task))
        self._newcomers.append(task)
        self.bell.ring()

    async def finish(self) -> None:
        """Return when nothing waits and nothing runs any more. Durable tasks that wait are left to the next queen."""
        self.runs.stopping = True
        for task in [task for task in self.queue.order() if task.durable]:
            self.queue.remove(task)
            task.log.suspend()
        self._idled = trio.Event()
        self.bell.ring()
        await self._idled.wait()

    def abandon(self) -> None:
        """End every task that still waits or runs: its client may submit it again, or the next queen runs it."""
        for task in list(self.queue.order()):
            self.drop(task, ErrorCode.WORKER_RESET, "queen-rbee stopped before its turn came", retriable=True)
        self.runs.abandon()

    def drop(
        self, task: Task, code: ErrorCode, message: str, *, retriable: bool, retry_after_ms: int | None = None
    ) -> None:
        """End a task that has not started."""
        self.queue.remove(task)
        now = trio.current_time()
        if task.fail(code, message, now, retriable=retriable, retry_after_ms=retry_after_ms):
            self.accounting.ended(task)

    def cancel(self, task: Task, why: CancelReason = "request") -> None:
        """End `task` by its owner's wish, wherever it is. Harmless when it has ended."""
        waited = self.queue.remove(task)
        if task.cancel(trio.current_time(), why) and waited:
            self.accounting.ended(task)

    def _count_unplaced(self) -> None:
        """Count those that have begun to wait and found no free slot, each once."""
        for task in self._newcomers:
            if task in self.queue:
                self.metrics.not_placed(task)
        self._newcomers.clear()

    def _give_up(self) -> None:
        """End what has waited too long for any replica that serves it."""
        now = trio.current_time()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        replicas = self.registry.replicas
        any_serves = any(found.serves for found in replicas.all())
        lanes = {task.demand for task in self.queue.order()}
        served = {lane: any_serves and any(found.serves for found in replicas.suitable(lane)) for lane in lanes}
        self.patience.look(served, now)
        if not self.patience.unserved:
            return
        for task in list(self.queue.order()):
            if self.patience.until(task.demand, task.submitted_at) <= now:
                words = f"no pool that could serve it was ready for {self.patience.limit_s:g} s"
                words += f"; the last replica that was tried: {task.last_failure}" if task.last_failure else ""
                again_ms = backoff_ms(self.patience.retry_s(task.demand, now))
                self.drop(task, ErrorCode.POOL_UNREADY, words, retriable=True, retry_after_ms=again_ms)

    def again_s(self, demand: Demand) -> float:
        """In how many seconds a client that is refused may come again."""
        now = trio.current_time()
        if not self.forecast.capacity(demand).slots_total:
            return self.patience.retry_s(demand, now)
        return self.forecast.gap_s(now)

    def _expire(self) -> None:
        """End what waits beyond its deadline; what does not wait any more is passed over."""
        while self._dated and (self._dated[0][0] <= trio.current_time() or self._dated[0][2] not in self.queue):
            task = heapq.heappop(self._dated)[2]
            if task in self.queue:
                late = "the deadline passed while it waited"
                self.drop(task, ErrorCode.DEADLINE_UNMET, late, retriable=False)
