"""The dispatcher: gives waiting tasks to free slots, runs them, and accounts for how each ends.

One loop owns the queue and the leases. A lease is taken in the same turn in which a task leaves the queue and given
back in `finally`, so that no order of cancel, engine death and shutdown loses a slot.
"""

import logging
from dataclasses import dataclass, field

import trio

from llama_orch.contracts.errors import ErrorCode
from llama_orch.service.watchdog import Pulse
from llama_orch.spool import Bell
from llama_orch.telemetry import correlation, events
from llama_orch.telemetry.records import emit
from queen_rbee import relay
from queen_rbee.admission import AdmissionQueue
from queen_rbee.book import TaskBook
from queen_rbee.candidates import Candidate, Demand, demand_of
from queen_rbee.engines.adapter import EngineAdapter
from queen_rbee.estimates import ServiceTimes
from queen_rbee.metrics import Metrics
from queen_rbee.placement import Strategy, choose
from queen_rbee.registry import Registry
from queen_rbee.task import Task

log = logging.getLogger(__name__)

STOPPED = "queen-rbee stopped"


@dataclass
class Dispatcher:
    """Everything that decides where a task runs; `run` is its loop."""

    queue: AdmissionQueue[Task]
    book: TaskBook
    registry: Registry
    metrics: Metrics
    adapters: dict[str, EngineAdapter]
    strategy: Strategy
    bell: Bell
    limits: relay.Limits = field(default_factory=relay.Limits)
    times: ServiceTimes = field(default_factory=ServiceTimes)
    turn: int = 0

    def __post_init__(self) -> None:
        self._idle = trio.Event()
        self._running: dict[Task, Candidate] = {}
        self._dated: set[Task] = set()

    async def run(self, pulse: Pulse, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dispatch for ever. Running tasks live in a nursery of its own, ended with it."""
        async with trio.open_nursery() as running:
            task_status.started()
            while True:
                self._expire()
                for task, target in self._placements():
                    self._start(task, target)
                    running.start_soon(self._serve, task, target)
                if not self.queue and not self.registry.leased:
                    self._idle.set()
                await self._rest(pulse)

    async def _rest(self, pulse: Pulse) -> None:
        """Wait until something has changed, but not beyond the next deadline of a waiting task."""
        pulse.beat()
        deadline = min((task.deadline for task in self._dated), default=float("inf"))
        await self.bell.wait(min(pulse.interval_s, max(0.0, deadline - trio.current_time())))

    def _placements(self) -> list[tuple[Task, Candidate]]:
        """Who may start now, and where; at most one for each free slot."""
        found: list[tuple[Task, Candidate]] = []
        hopeless: set[Demand] = set()
        candidates = list(self.registry.candidates())
        for task in self.queue.order():
            if not any(candidate.open for candidate in candidates):
                break
            demand = demand_of(task.request)
            if demand in hopeless:
                continue
            target = choose(candidates, demand, self.strategy, self.turn)
            if target is None:
                hopeless.add(demand)
                continue
            self.turn += 1
            found.append((task, target))
            candidates[candidates.index(target)] = _with_one_more(target)
        return found

    def _start(self, task: Task, target: Candidate) -> None:
        self.queue.take(task)
        self.registry.lease(target.key)
        task.start(target.pool_id, target.replica_id, trio.current_time())
        self.metrics.placed(task, target, len(self.registry.candidates()))
        task.log.append("metrics", {"queue_depth": len(self.queue), "pool_id": target.pool_id})
        task.log.append("narration", {"text": f"placed on pool {target.pool_id}, replica {target.replica_id}"})

    async def _serve(self, task: Task, target: Candidate) -> None:
        """Run `task` on `target` to its end, whatever that is; the lease ends with it."""
        correlation.current.set(task.correlation_id)
        self._running[task] = target
        try:
            with task.scope, trio.move_on_at(task.deadline) as deadline:
                await self._relay(task, target)
            if deadline.cancelled_caught:
                _fail(task, target, ErrorCode.DEADLINE_UNMET, "the deadline passed while it ran", retriable=False)
        finally:
            _fail(task, target, ErrorCode.WORKER_RESET, STOPPED, retriable=True)
            del self._running[task]
            self.registry.release(target.key)
            self._account(task, target)

    async def _relay(self, task: Task, target: Candidate) -> None:
        try:
            await relay.run(task, target, self.adapters[target.engine], self.limits)
        except relay.Failure as failure:
            _fail(task, target, failure.code, str(failure), retriable=failure.retriable)

    def _account(self, task: Task, target: Candidate) -> None:
        held_s = (task.ended_at or trio.current_time()) - (task.started_at or 0.0)
        if task.state == "done":
            self.times = self.times.ended(held_s)
        self.metrics.ended(task, target)
        self.book.ended(task)
        _report(task)

    def admitted(self, task: Task) -> None:
        """`task` waits now: look for a place for it, and keep its deadline in mind if it has one."""
        if task.request.deadline_ms:
            self._dated.add(task)
        self.bell.ring()

    async def finish(self) -> None:
        """Return when nothing waits and nothing runs any more."""
        self._idle = trio.Event()
        self.bell.ring()
        await self._idle.wait()

    def abandon(self) -> None:
        """End every task that still waits or runs: its client may submit it again."""
        for task in list(self.queue.order()):
            self.drop(task, ErrorCode.WORKER_RESET, "queen-rbee stopped before its turn came", retriable=True)
        for task, target in self._running.items():
            _fail(task, target, ErrorCode.WORKER_RESET, STOPPED, retriable=True)
            task.scope.cancel()

    def drop(self, task: Task, code: ErrorCode, message: str, *, retriable: bool) -> None:
        """End a task that has not started."""
        self.queue.remove(task)
        if task.fail(code, message, trio.current_time(), retriable=retriable):
            self.metrics.rejected.labels(task.request.engine or "", code.value).inc()
            self.book.ended(task)
            _report(task)

    def cancel(self, task: Task) -> None:
        """End `task` by its owner's wish, wherever it is. Harmless when it has ended."""
        if self.queue.remove(task):
            task.cancel(trio.current_time())
            self.metrics.canceled.labels("", "", "", "", "request").inc()
            self.book.ended(task)
            _report(task)
        else:
            task.cancel(trio.current_time())

    def _expire(self) -> None:
        now = trio.current_time()
        self._dated = {task for task in self._dated if task in self.queue}
        for task in [task for task in self._dated if task.deadline <= now]:
            self.drop(task, ErrorCode.DEADLINE_UNMET, "the deadline passed while it waited", retriable=False)


def _with_one_more(target: Candidate) -> Candidate:
    return Candidate(**{**vars(target), "leased": target.leased + 1})


def _fail(task: Task, target: Candidate, code: ErrorCode, message: str, *, retriable: bool) -> None:
    task.fail(code, message, trio.current_time(), retriable=retriable, engine=target.engine)


def _report(task: Task) -> None:
    fields = {"job_id": task.job_id, "pool_id": task.pool_id, "correlation_id": task.correlation_id}
    if task.error and task.error.code != ErrorCode.CANCELLED:
        emit(events.TASK_FAILED, code=task.error.code, reason=task.error.message, **fields)
    else:
        decode = round(task.decode_ms or 0)
        emit(events.TASK_ENDED, state=task.state, tokens_out=task.tokens_out, decode_ms=decode, **fields)
