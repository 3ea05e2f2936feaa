"""Record the end of a task: measurements, metrics, its session's account, an artifact, a stored record, a log line."""

from dataclasses import dataclass

import trio

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskView
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.catalog.catalog import Catalog
from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate, served_name
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.store.protocol import Document, Store
from queen_rbee.tasks.artifacts import Artifacts
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.task import Task

MESSAGE_WITHHELD = "the engine refused the request (its message may repeat the prompt and went to the client only)"


@dataclass
class Accounting:
    """Every task passes through `record_end` exactly once."""

    book: TaskBook
    metrics: Metrics
    forecast: Forecast
    store: Store
    sessions: Sessions
    catalog: Catalog
    artifacts: Artifacts
    _dropped: int = 0
    """Tasks dropped from a full queue since the last report. Under overload a log line for each would be most of the
    work, and would drown all others."""

    def record_end(self, task: Task, target: Candidate | None = None) -> None:
        """Record that `task` ended on `target`, or before it got a slot; forget its prompt."""
        if target:
            self.forecast.record_end(task)
            self.metrics.ended(task, target)
        else:
            self._count_unstarted(task)
        task.end_trace()
        self._settle_turn(task, target)
        if task.charge:
            _settle_charge(task)
        view = task.view()
        dropped = bool(task.error and task.error.code == ErrorCode.QUEUE_FULL_DROP_LRU)
        if not dropped:  # a dropped task is a late refusal: there is nothing to reproduce
            self.artifacts.record(view, task.request, target, task.passage)
        if task.durable:
            self.store.put_later("record", _record(view, task))
            self.store.mark_ended(task.task_id)
        task.forget_content()
        self.book.mark_ended(task)
        if dropped:
            self._dropped += 1
        else:
            _log_end(task)

    def report_dropped(self) -> None:
        """Emit one event for all tasks dropped since the last call."""
        if self._dropped:
            emit(events.TASKS_DROPPED, count=self._dropped)
        self._dropped = 0

    def _count_unstarted(self, task: Task) -> None:
        if task.state == "cancelled":
            self.metrics.canceled.labels("", "", "", "", task.cancel_reason).inc()
        elif task.error:
            self.metrics.rejected.labels(task.request.engine or "", task.error.code).inc()

    def _settle_turn(self, task: Task, target: Candidate | None) -> None:
        if task.session_turn is None:
            return
        measured = task.measurements
        if measured.started_at is None or measured.ended_at is None:
            self.sessions.abandon_turn(task.session_turn)
            return
        price = task_price(self.catalog, task, target) or 0.0
        self.sessions.end_turn(
            task.session_turn,
            tokens_in=measured.tokens_in,
            tokens_out=measured.tokens_out,
            engine_ms=1000 * (measured.ended_at - measured.started_at),
            cost=price * (measured.tokens_in + measured.tokens_out) / 1000,
            now=trio.current_time(),
        )


def _settle_charge(task: Task) -> None:
    measured, started = task.measurements, task.measurements.started_at is not None
    assert task.charge
    task.charge.end(measured.tokens_in, measured.tokens_out, trio.current_time(), started=started)


def task_price(catalog: Catalog, task: Task, target: Candidate | None = None) -> float | None:
    """Return the cost of 1000 tokens of the task's model, or of `target`'s if it names none; None if unknown."""
    name = task.request.model_ref
    return catalog.price(served_name(target, None) if target and name is None else name)


def _record(view: TaskView, task: Task) -> Document:
    """Return what GET /v2/tasks shows once the task is no longer in memory."""
    if view.error and task.error_quoted:
        view = view.model_copy(update={"error": view.error.model_copy(update={"message": MESSAGE_WITHHELD})})
    return Document(str(task.task_id), view.model_dump_json(exclude_none=True), tag=task.state)


def _log_end(task: Task) -> None:
    fields: dict[str, object] = {
        "job_id": task.job_id,
        "pool_id": task.place.pool_id,
        "correlation_id": task.correlation_id,
    }
    if task.charge:
        fields |= {"key": task.charge.name, "tokens_in": task.measurements.tokens_in}
    if task.error and task.error.code != ErrorCode.CANCELLED:
        reason = MESSAGE_WITHHELD if task.error_quoted else task.error.message
        emit(events.TASK_FAILED, code=task.error.code, reason=reason, **fields)
    else:
        measured = task.measurements
        decode_ms = round(measured.decode_ms or 0)
        emit(events.TASK_ENDED, state=task.state, tokens_out=measured.tokens_out, decode_ms=decode_ms, **fields)
