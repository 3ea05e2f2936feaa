"""What remains of a task when it has ended: measurements, metrics, its session's account, a record, a line in the log.

Every task passes through `ended` exactly once, whatever its end. Its prompt is forgotten here.
"""

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

NOT_KEPT = "the engine refused it; its words, which may repeat what it was asked, were for the client alone"


@dataclass
class Accounting:
    """All books that a task's end is written into."""

    book: TaskBook
    metrics: Metrics
    forecast: Forecast
    store: Store
    sessions: Sessions
    catalog: Catalog
    artifacts: Artifacts
    dropped: int = 0
    """Tasks that a full queue dropped and that nobody was told of yet: under overload a line for each would be most of
    the work, and drown all others."""

    def ended(self, task: Task, target: Candidate | None = None) -> None:
        """`task` has ended, on `target` or before it got a slot."""
        if target:
            self.forecast.ended(task)
            self.metrics.ended(task, target)
        else:
            self._never_ran(task)
        self._settle(task, target)
        view = task.view()
        dropped = bool(task.error and task.error.code == ErrorCode.QUEUE_FULL_DROP_LRU)
        if not dropped:  # else there is nothing to reproduce: it was refused, only later
            self.artifacts.record(view, task.request, target, task.passage)
        if task.durable:
            self.store.put_later("record", _record(view, task))
            self.store.ended(task.task_id)
        task.forget_content()
        self.book.ended(task)
        if dropped:
            self.dropped += 1
        else:
            _report(task)

    def report_dropped(self) -> None:
        """One line for all that were dropped since the last one."""
        if self.dropped:
            emit(events.TASKS_DROPPED, count=self.dropped)
        self.dropped = 0

    def _never_ran(self, task: Task) -> None:
        if task.state == "cancelled":
            self.metrics.canceled.labels("", "", "", "", task.cancel_reason).inc()
        elif task.error:
            self.metrics.rejected.labels(task.request.engine or "", task.error.code).inc()

    def _settle(self, task: Task, target: Candidate | None) -> None:
        if task.turn is None:
            return
        if task.started_at is None or task.ended_at is None:
            self.sessions.abandoned(task.turn)
            return
        self.sessions.ended(
            task.turn,
            tokens_in=task.tokens_in,
            tokens_out=task.tokens_out,
            engine_ms=1000 * (task.ended_at - task.started_at),
            cost=(self.price(task, target) or 0.0) * (task.tokens_in + task.tokens_out) / 1000,
            now=trio.current_time(),
        )

    def price(self, task: Task, target: Candidate | None = None) -> float | None:
        """What 1000 tokens of the task's model cost, None where that is not known yet; a task that names no model has
        that of `target`."""
        name = task.request.model_ref
        return self.catalog.price(served_name(target, None) if target and name is None else name)


def _record(view: TaskView, task: Task) -> Document:
    """What is kept of a task for those who ask later."""
    if view.error and task.quoted:
        view = view.model_copy(update={"error": view.error.model_copy(update={"message": NOT_KEPT})})
    return Document(str(task.task_id), view.model_dump_json(exclude_none=True), tag=task.state)


def _report(task: Task) -> None:
    fields = {"job_id": task.job_id, "pool_id": task.pool_id, "correlation_id": task.correlation_id}
    if task.error and task.error.code != ErrorCode.CANCELLED:
        reason = NOT_KEPT if task.quoted else task.error.message
        emit(events.TASK_FAILED, code=task.error.code, reason=reason, **fields)
    else:
        decode = round(task.decode_ms or 0)
        emit(events.TASK_ENDED, state=task.state, tokens_out=task.tokens_out, decode_ms=decode, **fields)
