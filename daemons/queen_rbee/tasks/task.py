"""One task from admission to its end: its state, its times, its event log, the scope that cancels it.

Every way a task can end goes through `end`, `fail` or `cancel`; the first one wins and the others do nothing, so that
no order of finish, cancel and engine death ends a task twice.
"""

import uuid
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import trio

from llama_orch.contracts.errors import ErrorCode, Reason
from llama_orch.contracts.tasks import TaskError, TaskRequest, TaskState, TaskView, Timings, Usage
from llama_orch.engines.wire.passage import Passage
from queen_rbee.pools.candidates import Demand, demand_of
from queen_rbee.sessions.session import Turn
from queen_rbee.tasks.event_log import EventLog

GENERATION_IDS = 1 << 32
"""Event ids of one run of a task; a later run, after a restart of the queen, starts this much higher."""


CancelReason = Literal["request", "client_left"]
"""Why a task is cancelled: somebody asked for it, or the /v1 client that waited for the answer is not there."""
CANCELLED: Mapping[CancelReason, str] = {"request": "cancelled on request", "client_left": "its client has left"}


def _nothing() -> None:
    """Nobody needs to know."""


@dataclass(eq=False)
class Task:
    """A task that was admitted. Times ending in `_at` are trio's clock in seconds, those in `_wall` are UTC.

    `passage` is what a /v1 client asked, None for the prompt of `request`. A `durable` task is known to the store until
    it ends; `generation` counts the queens that had it before.
    """

    request: TaskRequest
    correlation_id: str
    submitted_at: float
    passage: Passage | None = None
    submitted_wall: datetime = field(default_factory=lambda: datetime.now(UTC))
    generation: int = 0
    durable: bool = False
    started_wall: datetime | None = None
    ended_wall: datetime | None = None
    job_id: uuid.UUID = field(default_factory=uuid.uuid4)
    state: TaskState = TaskState.QUEUED
    log: EventLog = field(init=False)
    demand: Demand = field(init=False)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    pool_id: str | None = None
    replica_id: str | None = None
    started_at: float | None = None
    first_token_at: float | None = None
    ended_at: float | None = None
    traceparent: str | None = None
    client: str = ""
    """The address of the client that sent it; empty where that is not known (a Unix socket, an earlier queen)."""
    displaced_at: float | None = None
    """When it lost its first place before anything of its answer came."""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int | None = None
    asked_at: float | None = None
    heard_at: float | None = None
    kv_warmth: bool | None = None
    turn: Turn | None = None
    refused_by: set[tuple[str, str]] = field(default_factory=set)
    """The replicas that it is not sent to again before it has waited."""
    tried: set[tuple[str, str]] = field(default_factory=set)
    """All replicas that it was sent to in vain."""
    last_failure: str | None = None
    """Why the last of them did not answer; None where those are words of an engine, which are for its client alone."""
    moves: int = 0
    """How often what it was sent to has broken before anything of its answer came."""
    told_position: int | None = None
    error: TaskError | None = None
    cancel_reason: CancelReason = "request"
    quoted: bool = False
    """Whether the error's words are the engine's, which may repeat what it was asked: they are for its client alone."""
    delivered: bool = False
    """Whether anybody has been given a piece of the answer: then it cannot be run again."""
    on_delivery: Callable[[], None] = _nothing
    """Called once, before the first piece of the answer is given to anybody."""

    def __post_init__(self) -> None:
        self.task_id = self.request.task_id or uuid.uuid4()
        self.log = EventLog(self.generation * GENERATION_IDS)
        self.demand = demand_of(self.request, self.passage)

    @property
    def size(self) -> int:
        """Bytes of what it asks."""
        if self.passage:
            return self.passage.size
        return len(self.request.prompt or "") + sum(map(len, self.request.inputs))

    @property
    def shown(self) -> bool:
        """Whether anything of the answer has come."""
        return self.first_token_at is not None

    @property
    def identity(self) -> Hashable:
        """What tells that a client which was refused comes again: its task's id, or else the same words."""
        return self.request.task_id or self.content

    @property
    def content(self) -> Hashable:
        """What it asks, apart from who asks: a digest, since that may be many megabytes, and thousands of clients are
        remembered."""
        if self.passage and self.passage.mark:
            return self.passage.mark
        return hash((self.request.workload, self.request.prompt, self.request.inputs))

    def forget_content(self) -> None:
        """It has ended: what was asked is kept no longer."""
        self.request = self.request.model_copy(update={"prompt": None, "inputs": (), "stop": ()})
        self.passage = None

    @property
    def deadline(self) -> float:
        """When the task must have ended, on trio's clock; infinity without a deadline."""
        wanted = self.request.deadline_ms
        return self.submitted_at + wanted / 1000 if wanted else float("inf")

    def start(self, pool_id: str, replica_id: str, now: float) -> None:
        """It leaves the queue for a slot of a replica."""
        self.state, self.pool_id, self.replica_id = TaskState.RUNNING, pool_id, replica_id
        self.started_at, self.started_wall = now, datetime.now(UTC)

    def requeue(self) -> None:
        """It has lost its place before anything of its answer came, and waits again."""
        self.state, self.pool_id, self.replica_id = TaskState.QUEUED, None, None
        self.started_at = self.started_wall = self.asked_at = self.heard_at = None
        self.scope = trio.CancelScope()

    def token(self, text: str, now: float) -> bool:
        """One piece of the answer; False when the task has ended and nothing may follow."""
        self._heard(now)
        if not self.log.append("token", {"t": text, "i": self.tokens_out}):
            return False
        self.tokens_out += 1
        return True

    def chunk(self, raw: str, tokens: int, now: float, *, usage: bool = False) -> bool:
        """One chunk of an OpenAI stream, as it came; False when the task has ended."""
        self._heard(now)
        self.tokens_out += tokens
        return self.log.append_json("usage" if usage else "chunk", raw)

    def result(self, raw: str, now: float) -> bool:
        """An answer that comes whole; False when the task has ended."""
        self._heard(now)
        return self.log.append_json("result", raw)

    def deliver(self) -> None:
        """All that has come so far is about to be given to a reader."""
        if self.shown and not self.delivered:
            self.delivered = True
            self.on_delivery()

    def _heard(self, now: float) -> None:
        if self.first_token_at is None and not self.log.closed:
            self.first_token_at = now

    def end(self, tokens_in: int | None, tokens_out: int | None, now: float) -> bool:
        """The answer is complete; the counts are the engine's own, or else what was counted here."""
        if self.state.final:
            return False
        self.tokens_in = tokens_in or 0
        self.tokens_out = self.tokens_out if tokens_out is None else tokens_out
        self._finish(TaskState.DONE, now)
        decode = round(self.decode_ms or 0)
        counts = {"tokens_in": self.tokens_in, "tokens_out": self.tokens_out}
        return self.log.append("end", {**counts, "decode_time_ms": decode, "decode_ms": decode})

    def fail(
        self,
        code: ErrorCode,
        message: str,
        now: float,
        *,
        retriable: bool,
        engine: str | None = None,
        retry_after_ms: int | None = None,
        reason: Reason | None = None,
    ) -> bool:
        """It ends with an error that its readers see."""
        if self.state.final:
            return False
        self.error = TaskError(
            code=code, message=message, reason=reason, retriable=retriable, retry_after_ms=retry_after_ms
        )
        self._finish(TaskState.CANCELLED if code is ErrorCode.CANCELLED else TaskState.FAILED, now)
        body: dict[str, object] = {"code": code.value, "message": message, "retriable": retriable}
        body |= {"retry_after_ms": retry_after_ms} if retry_after_ms is not None else {}
        body |= {"engine": engine} if engine else {}
        body |= {"reason": reason} if reason else {}
        return self.log.append("error", body)

    def cancel(self, now: float, why: CancelReason = "request") -> bool:
        """End it by its owner's wish: no token follows, and the engine's connection closes at once."""
        ended = self.fail(ErrorCode.CANCELLED, CANCELLED[why], now, retriable=False)
        self.cancel_reason = why if ended else self.cancel_reason
        self.scope.cancel()
        return ended

    def _finish(self, state: TaskState, now: float) -> None:
        self.state, self.ended_at, self.ended_wall = state, now, datetime.now(UTC)

    @property
    def overhead_ms(self) -> float | None:
        """From admission to the first piece of the answer, less the wait for a slot and the engine's own time."""
        total, waited = _between(self.submitted_at, self.first_token_at), _between(self.submitted_at, self.started_at)
        engine = _between(self.asked_at, self.heard_at)
        return None if total is None or waited is None or engine is None else round(total - waited - engine, 3)

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
