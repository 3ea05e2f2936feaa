"""The dispatcher: gives waiting tasks to free slots, runs them, and accounts for how each ends.

One loop owns the queue and the leases. A lease is taken in the same turn in which a task leaves the queue and given
back in `finally`, so that no order of cancel, engine death and shutdown loses a slot. A task whose place is lost under
it (its node is gone, a drain's time is up) goes elsewhere as long as nothing of its answer has come.
"""

import heapq
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count

import trio

from llama_orch.contracts.errors import ErrorCode, Reason
from llama_orch.contracts.tasks import TaskState
from llama_orch.service.watchdog import Pulse
from llama_orch.spool import Bell
from llama_orch.telemetry import correlation
from queen_rbee import relay
from queen_rbee.accounting import Accounting
from queen_rbee.admission import AdmissionQueue
from queen_rbee.attempt import Attempt, breaks, ending, next_for
from queen_rbee.book import TaskBook
from queen_rbee.candidates import Candidate, Demand
from queen_rbee.circuits import Circuits
from queen_rbee.engines.adapter import EngineAdapter
from queen_rbee.forecast import Forecast
from queen_rbee.matching import Key
from queen_rbee.metrics import Metrics
from queen_rbee.placement import Strategy, pick
from queen_rbee.registry import Registry
from queen_rbee.task import CancelReason, Task

log = logging.getLogger(__name__)

STOPPED = "queen-rbee stopped"


@dataclass
class Dispatcher:
    """Everything that decides where a task runs; `run` is its loop."""

    queue: AdmissionQueue[Task]
    registry: Registry
    accounting: Accounting
    adapters: Mapping[str, EngineAdapter]
    strategy: Strategy
    bell: Bell
    limits: relay.Limits = field(default_factory=relay.Limits)
    hop: relay.Hop = field(default_factory=relay.Hop)
    turn: int = 0

    def __post_init__(self) -> None:
        self.circuits = Circuits(self.registry, self.metrics)
        self._idled = trio.Event()
        self._running: dict[Task, Attempt] = {}
        self._dated: list[tuple[float, int, Task]] = []
        self._numbers = count()
        self._stopping = False

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
                self.circuits.tick(trio.current_time())
                for task, target in self._placements():
                    self._start(task, target)
                    running.start_soon(self._serve, task, target)
                if self.idle:
                    self._idled.set()
                await self._rest(pulse)

    async def _rest(self, pulse: Pulse) -> None:
        """Wait until something has changed, but not beyond the next deadline of a waiting task or an open circuit."""
        pulse.beat()
        deadline = min(self._dated[0][0] if self._dated else float("inf"), self.circuits.next_retry)
        await self.bell.wait(min(pulse.interval_s, max(0.0, deadline - trio.current_time())))

    def _placements(self) -> list[tuple[Task, Candidate]]:
        """Who may start now, and where; each has its slot from here on."""
        found: list[tuple[Task, Candidate]] = []
        hopeless: set[Demand] = set()
        for task in self.queue.order(hopeless) if self.registry.replicas.slots_open else ():
            if task.demand in hopeless:
                continue
            suitable = self.registry.suitable(task.demand)
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
        self._occupy(task, target, now)
        self.metrics.placed(task, target, len(self.registry.replicas))

    def _occupy(self, task: Task, target: Candidate, now: float) -> None:
        """`task` runs on `target` from here on, where it has a slot."""
        self._running[task] = Attempt(target)
        task.start(target.pool_id, target.replica_id, now)
        if task.turn:
            task.kv_warmth = self.accounting.sessions.placed(task.turn, *target.key)
        task.log.append("metrics", self._situation(task, target))
        task.log.append("narration", {"text": f"placed on pool {target.pool_id}, replica {target.replica_id}"})
        log.debug("task %s placed on pool %s replica %s", task.task_id, target.pool_id, target.replica_id)

    def _situation(self, task: Task, target: Candidate) -> dict[str, object]:
        found: dict[str, object] = {"queue_depth": len(self.queue), "pool_id": target.pool_id}
        if task.request.deadline_ms:
            found["on_time_probability"] = round(self.forecast.on_time(task, -1, trio.current_time()), 3)
        if task.kv_warmth is not None:
            found["kv_warmth"] = task.kv_warmth
        if task.request.session_id:
            found |= self.accounting.sessions.budgets(task.request.session_id)
        return found

    async def _serve(self, task: Task, target: Candidate) -> None:
        """Run `task` to its end, whatever that is: on `target`, or elsewhere where that refuses it. The lease ends
        with it."""
        correlation.current.set(task.correlation_id)
        try:
            with task.scope, trio.move_on_at(task.deadline) as deadline:
                while other := await self._relay(task, self._running[task]):
                    self._move(task, other)
            if deadline.cancelled_caught:
                late = "the deadline passed while it ran"
                _fail(task, self._running[task].target, ErrorCode.DEADLINE_UNMET, late, retriable=False)
        finally:
            attempt = self._running.pop(task)
            self.registry.release(attempt.target.key)
            self._close(task, attempt.target)

    def _move(self, task: Task, other: Candidate) -> None:
        self.registry.release(self._running[task].target.key)
        self.registry.lease(other.key)
        self._occupy(task, other, trio.current_time())

    def _close(self, task: Task, target: Candidate) -> None:
        if task.state is TaskState.QUEUED and not self._stopping:
            return  # it has lost its place and waits for another
        if self._stopping and task.durable and not task.delivered and not task.state.final:
            task.log.suspend()  # the store still has it: the next queen runs it
            return
        _fail(task, target, ErrorCode.WORKER_RESET, STOPPED, retriable=True)
        self.accounting.ended(task, target)

    async def _relay(self, task: Task, attempt: Attempt) -> Candidate | None:
        """Run `task` on the attempt's target; another replica where it can go on, None where it has ended or waits."""
        target = attempt.target
        try:
            with attempt.scope:
                await relay.run(task, target, self.adapters[target.engine], self.limits, self.hop)
                self.circuits.worked(target)
                return None
            reason = attempt.lost or "it was interrupted"
            failure = relay.Failure(ErrorCode.WORKER_RESET, reason, retriable=True, engine_fault=False, lost=True)
        except relay.Failure as found:
            failure = found
            if failure.engine_fault:
                self.circuits.failed(target, trio.current_time(), str(failure))
        except Exception:
            # our own error ends the one task that met it: ending the queen would let a stored task end the next one too
            log.exception("task %s met an error of queen-rbee's own", task.task_id)
            _fail(task, target, ErrorCode.INTERNAL, "an error of queen-rbee's own; see its log", retriable=False)
            return None
        return self._after(failure, task, attempt)

    def _after(self, failure: relay.Failure, task: Task, attempt: Attempt) -> Candidate | None:
        """Where `task` goes on after a failure; None where it waits again, or has ended."""
        following = next_for(task, failure, attempt)
        task.moves += breaks(failure, attempt)
        if following != "end" and (other := self._elsewhere(task, attempt.target)):
            return other
        if following == "elsewhere or wait":
            self._put_back(task)
            return None
        failure = ending(task, failure, attempt)
        task.quoted = failure.quoted
        _fail(task, attempt.target, failure.code, str(failure), retriable=failure.retriable, reason=failure.reason)
        return None

    def _elsewhere(self, task: Task, target: Candidate) -> Candidate | None:
        """Another replica for a task that `target` refused before it began; each is tried once."""
        task.refused_by.add(target.key)
        candidates = [c for c in self.registry.suitable(task.demand) if c.key not in task.refused_by]
        return pick(candidates, task.demand, self.strategy, self.turn)

    def _put_back(self, task: Task) -> None:
        """`task` waits for another place, before all others."""
        if self._stopping:
            return
        task.requeue()
        task.refused_by.clear()
        task.log.append("narration", {"text": "its place was lost; it waits for another"})
        self.queue.put_back(task, task.request.priority, task.demand, task.size)
        self.admitted(task)

    def take_place(self, keys: Iterable[Key], reason: str) -> int:
        """Take the place of all tasks that run on these replicas from under them; how many there are. Those of which
        nothing has come go elsewhere, the others end with WORKER_RESET."""
        wanted = frozenset(keys)
        found = [attempt for attempt in self._running.values() if attempt.target.key in wanted]
        for attempt in found:
            attempt.lost = reason
            attempt.scope.cancel()
        return len(found)

    def admitted(self, task: Task) -> None:
        """`task` waits now: look for a place for it, and keep its deadline in mind if it has one."""
        if task.request.deadline_ms:
            heapq.heappush(self._dated, (task.deadline, next(self._numbers), task))
        self.bell.ring()

    async def finish(self) -> None:
        """Return when nothing waits and nothing runs any more. Durable tasks that wait are left to the next queen."""
        self._stopping = True
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
        for task, attempt in self._running.items():
            if task.delivered or not task.durable:
                _fail(task, attempt.target, ErrorCode.WORKER_RESET, STOPPED, retriable=True)
            task.scope.cancel()

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

    def _expire(self) -> None:
        """End what waits beyond its deadline; what does not wait any more is passed over."""
        while self._dated and (self._dated[0][0] <= trio.current_time() or self._dated[0][2] not in self.queue):
            task = heapq.heappop(self._dated)[2]
            if task in self.queue:
                late = "the deadline passed while it waited"
                self.drop(task, ErrorCode.DEADLINE_UNMET, late, retriable=False)


def _fail(
    task: Task, target: Candidate, code: ErrorCode, message: str, *, retriable: bool, reason: Reason | None = None
) -> None:
    task.fail(code, message, trio.current_time(), retriable=retriable, engine=target.engine, reason=reason)
