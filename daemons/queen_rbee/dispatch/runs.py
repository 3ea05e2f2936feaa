"""The tasks that run: each from its slot to its end, whatever that is, and accounted for.

Owns the attempts and gives each lease back in `finally`, so that no order of cancel, engine death and shutdown loses a
slot. A task whose place is lost under it (its engine or its node is gone, a drain's time is up) goes elsewhere as long
as nothing of its answer has come, or waits in the queue until it can.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import trio

from llama_orch.contracts.errors import ErrorCode, Reason
from llama_orch.contracts.tasks import TaskState
from llama_orch.engines.wire.adapter import EngineAdapter
from llama_orch.telemetry import correlation
from queen_rbee.dispatch import relay
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.dispatch.circuits import Circuits, Fault
from queen_rbee.dispatch.failure import Failure
from queen_rbee.dispatch.hop import Hop
from queen_rbee.dispatch.silence import Limits
from queen_rbee.pools.candidates import Candidate, ReplicaKey
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.task import Task

MOVES_MOST = 2
"""So often a task is placed again after what it was sent to has broken: a task may be what breaks it."""


@dataclass
class Attempt:
    """A task that runs on `target`; `lost` says why its place is taken from under it."""

    target: Candidate
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    lost: str | None = None


def breaks(failure: Failure, attempt: Attempt) -> bool:
    """Whether what the task was sent to has broken under it; the task may be why."""
    return attempt.lost is None and not failure.elsewhere


def goes_on(task: Task, failure: Failure, attempt: Attempt, waited_s: float, limit_s: float) -> bool:
    """Whether `task` is tried on another replica, or waits for one, rather than ending with `failure`.

    A task whose readers have seen a part of its answer is never tried again. `waited_s` is the time since its first
    place was lost, `limit_s` the longest that may become.
    """
    if task.shown or task.state.final or not (failure.elsewhere or failure.lost):
        return False
    if breaks(failure, attempt) and task.moves >= MOVES_MOST:
        return False
    return waited_s < limit_s


def ending(task: Task, failure: Failure, attempt: Attempt) -> Failure:
    """What `task` ends with that goes on nowhere. Where several replicas were tried and it has begun on none, that says
    more than the last one's own failure, which it quotes."""
    tried = {*task.tried, attempt.target.key}
    if task.shown or len(tried) < 2 or not (failure.elsewhere or failure.lost):
        return failure
    message = f"{len(tried)} replicas were tried, and none has begun to answer; the last one: {failure}"
    return Failure(ErrorCode.REPLICA_EXHAUSTED, message, retriable=True, blame=failure.blame, quoted=failure.quoted)


log = logging.getLogger(__name__)

STOPPED = "queen-rbee stopped"


@dataclass
class Runs:
    """`waiting` tells how many tasks wait, `elsewhere` finds a replica for a task that others have refused, `put_back`
    lets it wait before all others. `serve` is to be started for each task that has begun. `pool_wait_s` bounds how long
    a task that loses place after place is tried again."""

    registry: PoolRegistry
    accounting: Accounting
    adapters: Mapping[str, EngineAdapter]
    circuits: Circuits
    waiting: Callable[[], int]
    elsewhere: Callable[[Task], Candidate | None]
    put_back: Callable[[Task], None]
    limits: Limits
    hop: Hop
    pool_wait_s: float
    stopping: bool = False
    """From then on nothing waits for another place."""
    _attempts: dict[Task, Attempt] = field(default_factory=dict)

    def begin(self, task: Task, target: Candidate, now: float) -> None:
        """`task` runs on `target` from here on, where it has a slot."""
        self._attempts[task] = Attempt(target)
        task.start(target.pool_id, target.replica_id, now)
        if task.turn:
            task.kv_warmth = self.accounting.sessions.placed(task.turn, *target.key)
        task.log.append("metrics", self._situation(task, target, now))
        task.log.append("narration", {"text": f"placed on pool {target.pool_id}, replica {target.replica_id}"})
        log.debug("task %s placed on pool %s replica %s", task.task_id, target.pool_id, target.replica_id)

    def _situation(self, task: Task, target: Candidate, now: float) -> dict[str, object]:
        found: dict[str, object] = {"queue_depth": self.waiting(), "pool_id": target.pool_id}
        if task.request.deadline_ms:
            found["on_time_probability"] = round(self.accounting.forecast.on_time(task, -1, now), 3)
        if task.kv_warmth is not None:
            found["kv_warmth"] = task.kv_warmth
        if task.request.session_id:
            found |= self.accounting.sessions.budgets(task.request.session_id)
        return found

    async def serve(self, task: Task) -> None:
        """Run `task` to its end, where it has begun or elsewhere where that refuses it. The lease ends with it."""
        correlation.current.set(task.correlation_id)
        try:
            with task.scope, trio.move_on_at(task.deadline) as deadline:
                while other := await self._relay(task, self._attempts[task]):
                    self._move(task, other)
            if deadline.cancelled_caught:
                late = "the deadline passed while it ran"
                _fail(task, self._attempts[task].target, ErrorCode.DEADLINE_UNMET, late, retriable=False)
        finally:
            target = self._attempts.pop(task).target
            self.registry.release(target.key)
            self._close(task, target)

    def _move(self, task: Task, other: Candidate) -> None:
        self.registry.release(self._attempts[task].target.key)
        self.registry.lease(other.key)
        self.begin(task, other, trio.current_time())

    def _close(self, task: Task, target: Candidate) -> None:
        if task.state is TaskState.QUEUED and not self.stopping:
            return  # it has lost its place and waits for another
        if self.stopping and task.durable and not task.delivered and not task.state.final:
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
            failure = Failure(ErrorCode.WORKER_RESET, reason, retriable=True, blame="nobody", lost=True)
        except Failure as found:
            failure = found
            self._blame(task, target, failure)
        except Exception:
            # our own error ends the one task that met it: ending the queen would let a stored task end the next one too
            log.exception("task %s met an error of queen-rbee's own", task.task_id)
            _fail(task, target, ErrorCode.INTERNAL, "an error of queen-rbee's own; see its log", retriable=False)
            return None
        return self._after(failure, task, attempt)

    def _after(self, failure: Failure, task: Task, attempt: Attempt) -> Candidate | None:
        """Where `task` goes on after a failure; None where it waits again, or has ended."""
        now = trio.current_time()
        waited_s = now - (now if task.displaced_at is None else task.displaced_at)
        going_on = goes_on(task, failure, attempt, waited_s, self.pool_wait_s)
        task.moves += breaks(failure, attempt)
        if going_on:
            task.displaced_at = now - waited_s
            task.refused_by.add(attempt.target.key)
            task.tried.add(attempt.target.key)
            task.last_failure = None if failure.quoted else str(failure)
            if other := self.elsewhere(task):
                return other
            self._wait_again(task)
            return None
        failure = ending(task, failure, attempt)
        task.quoted = failure.quoted
        _fail(task, attempt.target, failure.code, str(failure), retriable=failure.retriable, reason=failure.reason)
        return None

    def _blame(self, task: Task, target: Candidate, failure: Failure) -> None:
        now = trio.current_time()
        reason = "it answers with errors" if failure.quoted else str(failure)  # else its words would be in the journal
        if failure.blame == "replica":
            self.circuits.away(target, now, reason)
        elif failure.blame == "unsure":
            self.circuits.failed(target, now, Fault(task.client, task.content), reason)

    def _wait_again(self, task: Task) -> None:
        if self.stopping:
            return
        task.requeue()
        task.refused_by.clear()
        task.log.append("narration", {"text": "its place was lost; it waits for another"})
        self.put_back(task)

    def take_place(self, keys: Iterable[ReplicaKey], reason: str) -> int:
        """Take the place of all tasks that run on these replicas from under them; how many there are. Those of which
        nothing has come go elsewhere, the others end with WORKER_RESET."""
        wanted = frozenset(keys)
        found = [attempt for attempt in self._attempts.values() if attempt.target.key in wanted]
        for attempt in found:
            attempt.lost = reason
            attempt.scope.cancel()
        return len(found)

    def abandon(self) -> None:
        """End all that run: the client may submit it again, or the next queen runs it."""
        for task, attempt in self._attempts.items():
            if task.delivered or not task.durable:
                _fail(task, attempt.target, ErrorCode.WORKER_RESET, STOPPED, retriable=True)
            task.scope.cancel()


def _fail(
    task: Task, target: Candidate, code: ErrorCode, message: str, *, retriable: bool, reason: Reason | None = None
) -> None:
    task.fail(code, message, trio.current_time(), retriable=retriable, engine=target.engine, reason=reason)
