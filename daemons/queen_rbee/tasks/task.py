"""One task from admission to its end: identity, request, state, event log and cancel scope.

Every end goes through `end`, `fail` or `cancel`. The first call wins and the others do nothing, so that a task never
ends twice, whatever the order of completion, cancellation and engine failure.
"""

from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from typing import Literal
from uuid import UUID

import trio

from llama_orch.contracts.errors import ErrorCode, Reason
from llama_orch.contracts.tasks import TaskError, TaskRequest, TaskState, TaskView
from llama_orch.engines.wire.passage import Passage
from llama_orch.ids import new_id
from queen_rbee.keys.account import Charge
from queen_rbee.keys.shares import Share
from queen_rbee.pools.candidates import demand_of
from queen_rbee.sessions.session import SessionTurn
from queen_rbee.tasks.direct_answer import DirectAnswer
from queen_rbee.tasks.event_log import EventLog
from queen_rbee.tasks.measurements import Measurements
from queen_rbee.tasks.place import Place
from queen_rbee.tasks.task_trace import TaskTrace

GENERATION_IDS = 1 << 32
"""Each restart of queen-rbee raises the event ids of a task that runs again by this much."""

CancelReason = Literal["request", "client_left"]
"""`request`: by the cancel route. `client_left`: the /v1 client that waited for the answer disconnected."""
CANCEL_MESSAGES: Mapping[CancelReason, str] = {"request": "cancelled on request", "client_left": "its client has left"}


def _ignore() -> None:
    pass


class Task:
    """An admitted task.

    `passage` is the body of a /v1 request; None if `request.prompt` says it all. A `durable` task is in the store until
    it ends; `generation` counts the restarts of queen-rbee since it was accepted. `client` is the client's address, or
    "" if unknown (Unix socket, accepted before a restart). `answer` is given if the client's own task runs this one.
    """

    def __init__(
        self,
        request: TaskRequest,
        correlation_id: str,
        submitted_at: float,
        passage: Passage | None = None,
        *,
        submitted_wall: datetime | None = None,
        generation: int = 0,
        durable: bool = False,
        job_id: UUID | None = None,
        traceparent: str | None = None,
        client: str = "",
        answer: DirectAnswer | None = None,
    ) -> None:
        self.request = request
        self.passage = passage
        self.task_id = request.task_id or new_id()
        self.job_id = job_id or new_id()
        self.correlation_id = correlation_id
        self.traceparent = traceparent
        self.client = client
        self.durable = durable
        self.demand = demand_of(request, passage)
        self.session_turn: SessionTurn | None = None
        self.charge: Charge | None = None
        """The account of the key that the task belongs to, if it belongs to one."""
        self.share: Share | None = None
        """How it shares the slots with others, where users have keys."""
        self.trace: TaskTrace | None = None
        self.measurements = Measurements(submitted_at, submitted_wall) if submitted_wall else Measurements(submitted_at)
        self.place = Place()
        self.state = TaskState.QUEUED
        self.error: TaskError | None = None
        self.error_quoted = False
        """Whether the error's message is the engine's, which may repeat the prompt: only the client may see it."""
        self.cancel_reason: CancelReason = "request"
        self.answer = answer
        self.log: EventLog | DirectAnswer = answer or EventLog(generation * GENERATION_IDS)
        self.generation = generation
        self.scope = trio.CancelScope()
        self.reported_position: int | None = None
        """The queue position in the last event that reported one."""
        self.reported_steps: tuple[str, ...] = ()
        """The steps of preparation that its readers know of."""
        self.start_by = submitted_at + request.wait_s if request.wait_s else float("inf")
        """When it ends if it has not had a slot yet, on trio's clock; infinity if it waits for as long as it takes."""
        self.delivered = False
        """Whether a reader got a piece of the answer: then the task cannot run again."""
        self.on_delivery: Callable[[], None] = _ignore
        """Called once, before the first piece of the answer goes to a reader."""

    @property
    def owner(self) -> str | None:
        """The name of the key that the task belongs to."""
        return self.charge.name if self.charge else None

    @property
    def size(self) -> int:
        """Size of the prompt and inputs in bytes (of a /v1 request: its body)."""
        if self.passage:
            return self.passage.size
        return len(self.request.prompt or "") + sum(map(len, self.request.inputs))

    @property
    def answer_started(self) -> bool:
        """Whether a piece of the answer has arrived."""
        return self.measurements.first_token_at is not None

    @property
    def retry_key(self) -> Hashable:
        """Recognises a refused client that tries again: the task's id if given, else the content."""
        return self.request.task_id or self.content_digest

    @property
    def content_digest(self) -> Hashable:
        """A digest, since prompts may have megabytes, and those of thousands of clients are remembered."""
        if self.passage and self.passage.mark:
            return self.passage.mark
        return hash((self.request.workload, self.request.prompt, self.request.inputs))

    @property
    def deadline(self) -> float:
        """When the task must have ended, on trio's clock; infinity without a deadline."""
        deadline_ms = self.request.deadline_ms
        return self.measurements.submitted_at + deadline_ms / 1000 if deadline_ms else float("inf")

    @property
    def waits_until(self) -> float:
        """How long it may stay in the queue, on trio's clock."""
        return min(self.deadline, self.start_by) if self.request.deadline_ms else self.start_by

    def forget_content(self) -> None:
        """Drop prompt, inputs and body: they are not kept beyond the task's end."""
        self.request = self.request.model_copy(update={"prompt": None, "inputs": (), "stop": ()})
        self.passage = None

    def start(self, pool_id: str, replica_id: str, now: float) -> None:
        """Move from the queue to a slot."""
        self.state = TaskState.RUNNING
        self.place.take(pool_id, replica_id)
        self.measurements.start(now)

    def requeue(self) -> None:
        """Move back to the queue; only before the answer has started."""
        self.state = TaskState.QUEUED
        self.start_by = float("inf")
        self.place.leave()
        self.measurements.reset_start()
        self.scope = trio.CancelScope()

    def suspend(self) -> None:
        """Close the log without an end: the task runs again after a restart of queen-rbee."""
        self.end_trace()
        self.log.suspend()

    def end_trace(self) -> None:
        """End the spans and forget them: ended tasks stay in memory for a while."""
        if self.trace:
            self.trace.end(self)
            self.trace = None

    def token(self, text: str, now: float) -> bool:
        """Append a piece of text; False if the task has ended."""
        self._note_output(now)
        if not self.log.append("token", {"t": text, "i": self.measurements.tokens_out}):
            return False
        self.measurements.tokens_out += 1
        return True

    def chunk(self, raw: str, tokens: int, now: float, *, usage: bool = False) -> bool:
        """Append a chunk of an OpenAI stream unchanged; False if the task has ended."""
        self._note_output(now)
        self.measurements.tokens_out += tokens
        return self.log.append_json("usage" if usage else "chunk", raw)

    def result(self, raw: str, now: float) -> bool:
        """Append an answer that is one JSON document; False if the task has ended."""
        self._note_output(now)
        return self.log.append_json("result", raw)

    def _note_output(self, now: float) -> None:
        if self.measurements.first_token_at is None and not self.log.closed:
            self.measurements.first_token_at = now

    def deliver(self) -> None:
        """Call before a reader gets what is in the log."""
        if self.answer_started and not self.delivered:
            self.delivered = True
            self.on_delivery()

    def end(self, tokens_in: int | None, tokens_out: int | None, now: float) -> bool:
        """Complete the task. Counts are the engine's; None keeps what was counted here. False if it has ended."""
        if self.state.final:
            return False
        measured = self.measurements
        measured.tokens_in = tokens_in or 0
        measured.tokens_out = measured.tokens_out if tokens_out is None else tokens_out
        self._finish(TaskState.DONE, now)
        decode_ms = round(measured.decode_ms or 0)
        counts = {"tokens_in": measured.tokens_in, "tokens_out": measured.tokens_out}
        return self.log.append("end", {**counts, "decode_time_ms": decode_ms, "decode_ms": decode_ms})

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
        """End with an error event; False if the task has ended."""
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

    def cancel(self, now: float, reason: CancelReason = "request") -> bool:
        """End the task and close the engine's connection at once; False if it has ended."""
        ended = self.fail(ErrorCode.CANCELLED, CANCEL_MESSAGES[reason], now, retriable=False)
        self.cancel_reason = reason if ended else self.cancel_reason
        self.scope.cancel()
        return ended

    def _finish(self, state: TaskState, now: float) -> None:
        self.state = state
        self.measurements.end(now)

    def view(self, queue_position: int | None = None, predicted_start_ms: int | None = None) -> TaskView:
        """Return what clients may know of the task."""
        # not validated: all values are valid, and the end of each task needs this
        return TaskView.model_construct(
            task_id=self.task_id,
            job_id=self.job_id,
            session_id=self.request.session_id,
            state=self.state,
            workload=self.request.workload,
            priority=self.request.priority,
            model_ref=self.request.model_ref,
            pool_id=self.place.pool_id,
            replica_id=self.place.replica_id,
            queue_position=queue_position,
            predicted_start_ms=predicted_start_ms,
            usage=self.measurements.usage,
            timings=self.measurements.timings,
            error=self.error,
            correlation_id=self.correlation_id,
            key=self.owner,
        )
