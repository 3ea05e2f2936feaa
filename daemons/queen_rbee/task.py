"""One task from admission to its end: its state, its times, its event log, the scope that cancels it.

Every way a task can end goes through `end`, `fail` or `cancel`; the first one wins and the others do nothing, so that
no order of finish, cancel and engine death ends a task twice.
"""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskError, TaskRequest, TaskState, TaskView, Timings, Usage
from queen_rbee.event_log import EventLog


@dataclass(eq=False)
class Task:
    """A task that was admitted. Times ending in `_at` are trio's clock in seconds, `submitted_wall` is UTC."""

    request: TaskRequest
    correlation_id: str
    submitted_at: float
    submitted_wall: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_wall: datetime | None = None
    ended_wall: datetime | None = None
    job_id: uuid.UUID = field(default_factory=uuid.uuid4)
    state: TaskState = TaskState.QUEUED
    log: EventLog = field(default_factory=EventLog)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    pool_id: str | None = None
    replica_id: str | None = None
    started_at: float | None = None
    first_token_at: float | None = None
    ended_at: float | None = None
    traceparent: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    error: TaskError | None = None

    def __post_init__(self) -> None:
        self.task_id = self.request.task_id or uuid.uuid4()

    @property
    def deadline(self) -> float:
        """When the task must have ended, on trio's clock; infinity without a deadline."""
        wanted = self.request.deadline_ms
        return self.submitted_at + wanted / 1000 if wanted else float("inf")

    def start(self, pool_id: str, replica_id: str, now: float) -> None:
        """It leaves the queue for a slot of a replica."""
        self.state, self.pool_id, self.replica_id = TaskState.RUNNING, pool_id, replica_id
        self.started_at, self.started_wall = now, datetime.now(UTC)

    def token(self, text: str, now: float) -> bool:
        """One piece of the answer; False when the task has ended and nothing may follow."""
        if not self.log.append("token", {"t": text, "i": self.tokens_out}):
            return False
        if self.first_token_at is None:
            self.first_token_at = now
        self.tokens_out += 1
        return True

    def end(self, tokens_in: int, tokens_out: int, now: float) -> bool:
        """The answer is complete; the counts are the engine's own."""
        if self.state.final:
            return False
        self.tokens_in, self.tokens_out = tokens_in, tokens_out
        self._finish(TaskState.DONE, now)
        decode = round(self.decode_ms or 0)
        counts = {"tokens_in": tokens_in, "tokens_out": tokens_out}
        return self.log.append("end", {**counts, "decode_time_ms": decode, "decode_ms": decode})

    def fail(self, code: ErrorCode, message: str, now: float, *, retriable: bool, engine: str | None = None) -> bool:
        """It ends with an error that its readers see."""
        if self.state.final:
            return False
        self.error = TaskError(code=code, message=message, retriable=retriable)
        self._finish(TaskState.CANCELLED if code is ErrorCode.CANCELLED else TaskState.FAILED, now)
        body: dict[str, object] = {"code": code.value, "message": message, "retriable": retriable}
        if engine:
            body["engine"] = engine
        return self.log.append("error", body)

    def cancel(self, now: float) -> bool:
        """End it by its owner's wish: no token follows, and the engine's connection closes at once."""
        ended = self.fail(ErrorCode.CANCELLED, "cancelled on request", now, retriable=False)
        self.scope.cancel()
        return ended

    def _finish(self, state: TaskState, now: float) -> None:
        self.state, self.ended_at, self.ended_wall = state, now, datetime.now(UTC)

    @property
    def decode_ms(self) -> float | None:
        """From the first token to the end, in milliseconds."""
        return _between(self.first_token_at, self.ended_at)

    def view(self, queue_position: int | None = None, predicted_start_ms: int | None = None) -> TaskView:
        """What clients may know of it."""
        return TaskView(
            task_id=self.task_id,
            job_id=self.job_id,
            session_id=self.request.session_id,
            state=self.state,
            workload=self.request.workload,
            priority=self.request.priority,
            model_ref=self.request.model_ref,
            pool_id=self.pool_id,
            replica_id=self.replica_id,
            queue_position=queue_position,
            predicted_start_ms=predicted_start_ms,
            usage=Usage(tokens_in=self.tokens_in, tokens_out=self.tokens_out),
            timings=self._timings(),
            error=self.error,
            correlation_id=self.correlation_id,
        )

    def _timings(self) -> Timings:
        return Timings(
            submitted_at=self.submitted_wall,
            started_at=self.started_wall,
            ended_at=self.ended_wall,
            queued_ms=_between(self.submitted_at, self.started_at),
            first_token_ms=_between(self.submitted_at, self.first_token_at),
            decode_ms=self.decode_ms,
        )


def _between(start: float | None, stop: float | None) -> float | None:
    return None if start is None or stop is None else round((stop - start) * 1000, 3)
