"""The dispatcher's loop: start waiting tasks on free slots, and end those that waited too long.

A lease is taken in the same step in which its task leaves the queue; from then on `Runs` owns both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.errors import ErrorCode
from llama_orch.service.watchdog import Pulse
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.dispatch.attendance import Attendance
from queen_rbee.dispatch.circuits import Circuits
from queen_rbee.dispatch.estimates import backoff_ms
from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.outages import Outages
from queen_rbee.dispatch.placer import QueuePlacer
from queen_rbee.dispatch.promises import Promises
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.dispatch.runs import Runs
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate, Demand
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.task import CancelReason, Task

OUTAGE_CHECK_S = 1.0
"""How often to check whether a replica serves the tasks that wait."""


@dataclass
class Dispatcher:
    """`run` is the loop. `drop` and `cancel` end tasks, wherever they are."""

    queue: AdmissionQueue[Task]
    registry: PoolRegistry
    placer: QueuePlacer
    runs: Runs
    circuits: Circuits
    outages: Outages[Demand]
    promises: Promises[Demand]
    forecast: Forecast
    accounting: Accounting
    metrics: Metrics
    bell: Bell
    on_start: Callable[[Task, Candidate], None] = lambda _task, _target: None
    """Called with each task that gets a slot."""
    attendance: Attendance = field(default_factory=Attendance)
    _idle_event: trio.Event = field(default_factory=trio.Event)
    _nursery: trio.Nursery | None = None
    _outage_check_at: float = float("-inf")

    @property
    def idle(self) -> bool:
        """Whether no task waits or runs."""
        return not self.queue and not self.registry.leased

    async def run(self, pulse: Pulse, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dispatch until cancelled. Running tasks live in this function's nursery, those of /v1 in their clients'."""
        async with trio.open_nursery() as self._nursery:
            nursery = self._nursery
            await nursery.start(self.attendance.run)
            task_status.started()
            while True:
                self._drop_expired()
                for replica in self.circuits.due(trio.current_time()):
                    nursery.start_soon(self.circuits.check, replica)
                await self._start_waiting(nursery)
                for task in self.placer.take_unplaced_arrivals():
                    self.metrics.not_placed(task)
                    self.registry.ring_residency()
                self._drop_unserved()
                if self.idle:
                    self._idle_event.set()
                await self._wait_for_change(pulse)

    async def _wait_for_change(self, pulse: Pulse) -> None:
        """Wait for the bell, at most until the next deadline, health check or outage check."""
        pulse.beat()
        due_at = min(self.placer.next_deadline, self.circuits.next_check)
        due_at = min(due_at, self._outage_check_at if self.queue else float("inf"))
        await self.bell.wait(min(pulse.interval_s, max(0.0, due_at - trio.current_time())))

    async def _start_waiting(self, nursery: trio.Nursery) -> None:
        """Start the waiting tasks that have a slot now; those that no client runs live in `nursery`."""
        blocked: set[Demand] = set()
        while placed := await self.placer.place_next(blocked):
            task, target = placed
            self._start(task, target)
            if task.answer:
                task.answer.grant()
            else:
                nursery.start_soon(self.runs.serve, task)

    async def accompany(self, task: Task) -> None:
        """Run a /v1 task in the task of its client, until it ends. Cancelling that cancels the task."""
        answer = task.answer
        assert answer, "only a task with an answer can be accompanied"
        try:
            await self._start_at_once(task)
            while not answer.closed:
                await answer.wait_granted()
                if answer.granted:
                    answer.granted = False
                    await self.runs.serve(task)
        finally:
            if not task.state.final:
                self.cancel(task, "client_left")
            if answer.granted:  # it got a slot, and ended before it could run
                answer.granted = False
                self.runs.finish(task)

    async def _start_at_once(self, task: Task) -> None:
        """Start `task` if nothing else waits and a slot is free, which spares it a turn of the loop."""
        if self._nursery and len(self.queue) == 1:
            await self._start_waiting(self._nursery)
        if task in self.queue:
            self.placer.waits(task)

    def _start(self, task: Task, target: Candidate) -> None:
        now = trio.current_time()
        self.queue.take(task)
        self.forecast.record_start(now, bool(self.queue))
        self.runs.begin(task, target, now)
        self.on_start(task, target)
        self.metrics.placed(task, target, len(self.registry.replicas))

    async def finish(self) -> None:
        """Wait until no task waits or runs. Waiting durable tasks are left in the store for the next start."""
        self.runs.stopping = True
        for task in [task for task in self.queue.order() if task.durable]:
            self.queue.remove(task)
            task.suspend()
        self._idle_event = trio.Event()
        self.bell.ring()
        await self._idle_event.wait()

    def abandon(self) -> None:
        """End all waiting and running tasks. Running durable ones are run again after the restart if they can be."""
        for task in list(self.queue.order()):
            self.drop(task, ErrorCode.WORKER_RESET, "queen-rbee stopped before the task started", retriable=True)
        self.runs.abandon()

    def drop(
        self, task: Task, code: ErrorCode, message: str, *, retriable: bool, retry_after_ms: int | None = None
    ) -> None:
        """End a task that has not started."""
        self.queue.remove(task)
        self.registry.ring_residency()
        now = trio.current_time()
        if task.fail(code, message, now, retriable=retriable, retry_after_ms=retry_after_ms):
            self.accounting.record_end(task)

    def cancel(self, task: Task, reason: CancelReason = "request") -> None:
        """Cancel `task`; no effect if it has ended."""
        waited = self.queue.remove(task)
        if waited:
            self.registry.ring_residency()
        if task.cancel(trio.current_time(), reason) and waited:
            self.accounting.record_end(task)

    def _drop_expired(self) -> None:
        now = trio.current_time()
        for task in self.placer.take_expired(now):
            if task.deadline <= now:
                message = "the deadline passed while the task waited"
                self.drop(task, ErrorCode.DEADLINE_UNMET, message, retriable=False)
            else:
                self._drop_impatient(task, now)

    def _drop_impatient(self, task: Task, now: float) -> None:
        """End a task that has waited for as long as its client allows; its model is still loaded, for the retry."""
        position = self.queue.position(task) or 0
        start_ms = self.forecast.start_ms(task.demand, position)
        retry_ms = max(1, start_ms) if start_ms else backoff_ms(self.outages.retry_s(task.demand, now))
        message = f"the task has waited for {task.request.wait_s} s, as long as its client allows"
        if self.forecast.capacity(task.demand).slots_total:
            self.drop(task, ErrorCode.ADMISSION_REJECT, message, retriable=True, retry_after_ms=retry_ms)
            return
        self.promises.add(task.demand, task.measurements.submitted_at, now + retry_ms / 1000)
        message += "; no model that could serve it is loaded yet"
        self.drop(task, ErrorCode.POOL_UNREADY, message, retriable=True, retry_after_ms=retry_ms)

    def _drop_unserved(self) -> None:
        """End tasks that waited too long for any replica that serves them."""
        now = trio.current_time()
        if now < self._outage_check_at:
            return
        self._outage_check_at = now + OUTAGE_CHECK_S
        replicas = self.registry.replicas
        lanes = {task.demand for task in self.queue.first_of_lanes()}
        served = {
            lane: any(found.serves or found.coming_up or found.asleep for found in replicas.suitable(lane))
            for lane in lanes
        }
        self.outages.update(served, now)
        if not self.outages.unserved:
            return
        for task in list(self.queue.order()):
            if self.outages.give_up_at(task.demand, task.measurements.submitted_at) <= now:
                message = f"no pool that could serve the task was ready for {self.outages.limit_s:g} s"
                if task.place.last_failure:
                    message += f"; the last replica that was tried: {task.place.last_failure}"
                retry_ms = backoff_ms(self.outages.retry_s(task.demand, now))
                self.drop(task, ErrorCode.POOL_UNREADY, message, retriable=True, retry_after_ms=retry_ms)
