"""The running tasks: each from its slot to its end.

Owns the attempts, and releases each lease in `finally`, so that no order of cancel, engine failure and shutdown loses a
slot. A task that loses its replica (engine or node gone, drain timed out) goes to another one as long as its answer has
not started, or waits in the queue for one.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import trio

from llama_orch.contracts.errors import ErrorCode, Reason
from llama_orch.contracts.tasks import TaskState
from llama_orch.engines.wire.adapter import EngineAdapter
from llama_orch.telemetry import correlation
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.dispatch import relay
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.dispatch.circuits import Circuits, Fault
from queen_rbee.dispatch.failures import FailureKind, RelayFailure
from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.hop import Hop
from queen_rbee.dispatch.placer import Placer
from queen_rbee.dispatch.stalls import StallLimits
from queen_rbee.pools.candidates import Candidate, ReplicaKey
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.tasks.task import Task

MAX_BREAKS = 2
"""A task is placed again after this many broken attempts: the task itself may break engines."""
STOPPED = "queen-rbee stopped"

log = logging.getLogger(__name__)


@dataclass
class Attempt:
    """A task running on `target`. `displaced` is why it must leave, if it must."""

    target: Candidate
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    displaced: str | None = None


def counts_as_break(failure: RelayFailure, attempt: Attempt) -> bool:
    """Return whether the engine may have broken because of the task."""
    return attempt.displaced is None and failure.next_step != "elsewhere"


def may_continue(task: Task, failure: RelayFailure, attempt: Attempt, waited_s: float, limit_s: float) -> bool:
    """Return whether `task` is tried on another replica, or waits for one, rather than ending with `failure`.

    Never once its answer has started. `waited_s` is the time since it lost its first slot, `limit_s` the maximum.
    """
    if task.answer_started or task.state.final or failure.next_step == "end":
        return False
    if counts_as_break(failure, attempt) and task.place.breaks >= MAX_BREAKS:
        return False
    return waited_s < limit_s


def final_failure(task: Task, failure: RelayFailure, attempt: Attempt) -> RelayFailure:
    """Return the failure that ends a task which cannot continue.

    If several replicas were tried and none started to answer, that says more than the last failure, which it quotes.
    """
    tried = {*task.place.tried, attempt.target.key}
    if task.answer_started or len(tried) < 2 or failure.next_step == "end":
        return failure
    message = f"{len(tried)} replicas were tried, and none started to answer; the last one: {failure}"
    return RelayFailure(FailureKind.EXHAUSTED, message, quoted=failure.quoted)


@dataclass
class Runs:
    """Start `serve` for each task passed to `begin`.

    `pool_wait_s` limits how long a task that loses its replicas is tried again. Once `stopping` is set, no task waits
    for another replica.
    """

    registry: PoolRegistry
    adapters: Mapping[str, EngineAdapter]
    accounting: Accounting
    forecast: Forecast
    sessions: Sessions
    circuits: Circuits
    placer: Placer
    limits: StallLimits
    hop: Hop
    pool_wait_s: float
    stopping: bool = False
    _attempts: dict[Task, Attempt] = field(default_factory=dict)

    def begin(self, task: Task, target: Candidate, now: float) -> None:
        """Record that `task` runs on `target`, where it has a lease."""
        self._attempts[task] = Attempt(target)
        if task.trace:
            task.trace.placed(target, self.placer.queue_depth)
        task.start(target.pool_id, target.replica_id, now)
        if task.session_turn:
            task.place.kv_warmth = self.sessions.place_turn(task.session_turn, *target.key)
        task.log.append("metrics", self._start_metrics(task, target, now))
        task.log.append("narration", {"text": f"placed on pool {target.pool_id}, replica {target.replica_id}"})
        fields = {"job_id": task.job_id, "pool_id": target.pool_id, "replica_id": target.replica_id}
        emit(events.TASK_PLACED, **fields, correlation_id=task.correlation_id)
        if task.trace:
            task.trace.placement_done(task.place.kv_warmth)

    def _start_metrics(self, task: Task, target: Candidate, now: float) -> dict[str, object]:
        metrics: dict[str, object] = {"queue_depth": self.placer.queue_depth, "pool_id": target.pool_id}
        if task.request.deadline_ms:
            metrics["on_time_probability"] = round(self.forecast.on_time(task, -1, now), 3)
        if task.place.kv_warmth is not None:
            metrics["kv_warmth"] = task.place.kv_warmth
        if task.request.session_id:
            metrics |= self.sessions.budgets(task.request.session_id)
        return metrics

    async def serve(self, task: Task) -> None:
        """Run `task` until it ends or goes back to the queue, on other replicas if need be; then release its lease."""
        correlation.current.set(task.correlation_id)
        try:
            task.scope.deadline = task.deadline
            with task.scope:
                while other := await self._relay(task, self._attempts[task]):
                    self._move(task, other)
            if task.scope.cancelled_caught and trio.current_time() >= task.deadline:
                target = self._attempts[task].target
                message = "the deadline passed while the task ran"
                _fail(task, target, ErrorCode.DEADLINE_UNMET, message, retriable=False)
        except trio.Cancelled:
            if task.answer:
                task.cancel(trio.current_time(), "client_left")
            raise
        finally:
            self.finish(task)

    def finish(self, task: Task) -> None:
        """Release the lease of a task that runs no more."""
        target = self._attempts.pop(task).target
        # the dispatcher has nothing to do if no task waits and no circuit has opened
        wake = self.stopping or self.placer.queue_depth > 0 or self.circuits.next_check < math.inf
        self.registry.release(target.key, wake=wake)
        self._close(task, target)

    def _move(self, task: Task, other: Candidate) -> None:
        self.registry.release(self._attempts[task].target.key)
        self.begin(task, other, trio.current_time())

    def _close(self, task: Task, target: Candidate) -> None:
        if task.state is TaskState.QUEUED and not self.stopping:
            return  # it waits for another replica
        if self.stopping and task.durable and not task.delivered and not task.state.final:
            task.suspend()  # it runs again after the restart: the store still has it
            return
        _fail(task, target, ErrorCode.WORKER_RESET, STOPPED, retriable=True)
        self.accounting.record_end(task, target)

    async def _relay(self, task: Task, attempt: Attempt) -> Candidate | None:
        """Run the attempt. Return another replica to go on with; None if the task has ended or waits."""
        target = attempt.target
        try:
            with attempt.scope:
                await relay.run(task, target, self.adapters[target.engine], self.limits, self.hop)
                self.circuits.record_answer(target)
                return None
            failure = RelayFailure(FailureKind.DISPLACED, attempt.displaced or "the attempt was interrupted")
        except RelayFailure as raised:
            failure = raised
            self._blame(task, target, failure)
        except Exception:
            # fail this task only: if queen-rbee crashed, a durable task would crash it again after the restart
            log.exception("task %s failed by an internal error", task.task_id)
            message = "internal error of queen-rbee (see its log)"
            _fail(task, target, ErrorCode.INTERNAL, message, retriable=False)
            return None
        return await self._continue_or_fail(failure, task, attempt)

    async def _continue_or_fail(self, failure: RelayFailure, task: Task, attempt: Attempt) -> Candidate | None:
        """Return another replica, with a lease for the task; None if it waits again or has ended."""
        now, place = trio.current_time(), task.place
        waited_s = 0.0 if place.displaced_at is None else now - place.displaced_at
        continues = may_continue(task, failure, attempt, waited_s, self.pool_wait_s)
        place.breaks += counts_as_break(failure, attempt)
        if continues:
            if task.trace:
                task.trace.attempt_failed(failure.code.value)
            place.displaced_at = now - waited_s
            place.excluded.add(attempt.target.key)
            place.tried.add(attempt.target.key)
            place.last_failure = None if failure.quoted else str(failure)
            if other := await self.placer.other_replica(task):
                return other
            self._requeue(task)
            return None
        failure = final_failure(task, failure, attempt)
        task.error_quoted = failure.quoted
        _fail(task, attempt.target, failure.code, str(failure), retriable=failure.retriable, reason=failure.reason)
        return None

    def _blame(self, task: Task, target: Candidate, failure: RelayFailure) -> None:
        now = trio.current_time()
        # a quoted message may repeat the prompt, which must not reach the journal
        reason = "it answers with errors" if failure.quoted else str(failure)
        if failure.blame == "replica":
            self.circuits.record_outage(target, now, reason)
        elif failure.blame == "unsure":
            self.circuits.record_fault(target, now, Fault(task.client, task.content_digest), reason)

    def _requeue(self, task: Task) -> None:
        if self.stopping:
            return
        task.requeue()
        if task.trace:
            task.trace.waits_again()
        task.log.append("narration", {"text": "the replica was lost; waiting for another"})
        self.placer.requeue(task)

    def displace(self, keys: Iterable[ReplicaKey], reason: str) -> int:
        """Take all tasks off these replicas; return how many there are.

        Those whose answer has not started continue elsewhere, the others end with WORKER_RESET.
        """
        replicas = frozenset(keys)
        attempts = [attempt for attempt in self._attempts.values() if attempt.target.key in replicas]
        for attempt in attempts:
            attempt.displaced = reason
            attempt.scope.cancel()
        return len(attempts)

    def abandon(self) -> None:
        """Stop all running tasks. Those that the store can run again after the restart do not end."""
        for task, attempt in self._attempts.items():
            if task.delivered or not task.durable:
                _fail(task, attempt.target, ErrorCode.WORKER_RESET, STOPPED, retriable=True)
            task.scope.cancel()


def _fail(
    task: Task, target: Candidate, code: ErrorCode, message: str, *, retriable: bool, reason: Reason | None = None
) -> None:
    task.fail(code, message, trio.current_time(), retriable=retriable, engine=target.engine, reason=reason)
