"""Admission: turn a request into a waiting task, or refuse it with the reason and when to retry.

All checks are made, and the task is queued, without awaiting in between, so that no check is outdated when the task is
in the queue. A /v2 task is in the store before its client gets the 202.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple
from uuid import UUID

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage, passage_for
from llama_orch.http.server.bodies import invalid
from llama_orch.telemetry import correlation
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.catalog.catalog import Catalog
from queen_rbee.dispatch.accounting import task_price
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.estimates import MIN_ON_TIME_PROBABILITY, backoff_ms
from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.max_tokens import fit_to_context
from queen_rbee.dispatch.placer import QueuePlacer
from queen_rbee.dispatch.queue import AdmissionQueue, QueueFull
from queen_rbee.intake.accepted import accepted_json
from queen_rbee.intake.backpressure import Backpressure
from queen_rbee.intake.progress import steps_before
from queen_rbee.keys.keyring import Keyring
from queen_rbee.keys.owners import with_owner
from queen_rbee.metrics import Metrics
from queen_rbee.pools.model_lookup import resolve_request
from queen_rbee.pools.placement import PlacementRefusal, refusal
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.store.protocol import DurableTasks, StoredTask, StoreFailure, not_stored
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.direct_answer import DirectAnswer
from queen_rbee.tasks.task import Task
from queen_rbee.tasks.task_trace import trace_of

STATUS = {ErrorCode.INVALID_PARAMS: 400, ErrorCode.POOL_UNAVAILABLE: 409, ErrorCode.POOL_UNREADY: 503}
DROPPED = "dropped from the full queue for a newer task (policy drop-lru)"


class Entry(NamedTuple):
    """A task that has entered the queue: how many tasks are ahead of it, and in how many milliseconds it starts."""

    task: Task
    position: int
    start_ms: int | None


class AcceptedTask(NamedTuple):
    """A task that is stored: how many tasks were ahead of it, and the body of the 202."""

    task: Task
    position: int
    body: bytes


@dataclass
class Intake:
    """The only way for a task into the queue."""

    queue: AdmissionQueue[Task]
    placer: QueuePlacer
    dispatcher: Dispatcher
    backpressure: Backpressure
    registry: PoolRegistry
    catalog: Catalog
    sessions: Sessions
    forecast: Forecast
    book: TaskBook
    store: DurableTasks
    metrics: Metrics
    keys: Keyring = field(default_factory=Keyring)
    _closed: bool = False

    def close(self) -> None:
        """Refuse all tasks from now on: the daemon is stopping."""
        self._closed = True

    def admit(
        self,
        request: TaskRequest,
        correlation_id: str,
        traceparent: str | None = None,
        passage: Passage | None = None,
        *,
        durable: bool = False,
        answer: DirectAnswer | None = None,
    ) -> Task:
        """Queue a task. Raises ApiError with the reason and, if it is worth retrying, when to retry.

        A task that is not `durable` ends with queen-rbee: its client waits for the answer on the same connection. With
        an `answer` the caller runs the task by `Dispatcher.accompany`.
        """
        return self._admit(request, correlation_id, traceparent, passage, durable=durable, answer=answer).task

    def _admit(
        self,
        request: TaskRequest,
        correlation_id: str,
        traceparent: str | None,
        passage: Passage | None = None,
        *,
        durable: bool,
        answer: DirectAnswer | None = None,
    ) -> Entry:
        if self._closed:
            raise self.backpressure.retry_later(503, ErrorCode.ADMISSION_REJECT, "queen-rbee is stopping")
        request = self.keys.permit(request, passage)
        request = resolve_request(request, self.catalog, self.registry.replicas)
        if passage:
            request = fit_to_context(request, passage, self.registry.replicas)
        passage = passage or passage_for(request)
        now = trio.current_time()
        client = correlation.peer.get() or ""
        task = Task(
            request,
            correlation_id,
            now,
            passage,
            traceparent=traceparent,
            durable=durable,
            client=client,
            answer=answer,
        )
        task.charge = self.keys.charge(task.size, request.max_tokens)
        task.share = self.keys.share(task.charge, task.size, request.max_tokens)
        self._check(task)
        return self._enqueue(task)

    async def submit(self, request: TaskRequest, correlation_id: str, traceparent: str | None = None) -> AcceptedTask:
        """Queue and store a task. Raises ApiError as `admit` does."""
        entry = self._admit(request, correlation_id, traceparent, durable=True)
        task, position = entry.task, entry.position
        backoff = backoff_ms(self.backpressure.retry_s(task.demand)) if position else 0
        body = accepted_json(task.task_id, task.job_id, position, entry.start_ms, backoff, task.reported_steps)
        try:
            await self.store.accept(stored_task(task))
        except StoreFailure as failure:
            self._withdraw(task)
            raise not_stored(failure) from failure
        except trio.Cancelled:
            self._withdraw(task)
            raise
        return AcceptedTask(task, position, body)

    def _withdraw(self, task: Task) -> None:
        """Cancel a task whose client did not get the 202."""
        task.durable = False
        self.dispatcher.cancel(task)

    def restore(self, task: Task) -> None:
        """Queue a task that was accepted before a restart, whatever the capacity."""
        task.share = self.keys.share(task.charge, task.size, task.request.max_tokens)
        self.queue.restore(task, task.request.priority, task.demand, task.size, share=task.share)
        self._enqueued(task)

    def _check(self, task: Task) -> None:
        known = self.book.get(task.task_id)
        if known and not (known.error and known.error.retriable and known.owner == task.owner):
            raise ApiError(409, invalid([("task_id", "is already used by another task")]))
        self._check_placement(task)
        self._check_deadline(task)
        if session_id := task.request.session_id:
            tokens, price = task.request.max_tokens or task.request.expected_tokens, task_price(self.catalog, task)
            refused = self.sessions.turn_refusal(session_id, tokens, trio.current_time(), price=price)
            if refused:
                raise refused
        self._check_wait(task)
        if task.charge:
            task.charge.check(trio.current_time())

    def _check_wait(self, task: Task) -> None:
        """Refuse a task that must not wait for a load, unless a replica serves it now; let its model be loaded."""
        if task.request.wait_s == 0 and not self.forecast.capacity(task.demand).slots_total:
            self.registry.ring_residency()
            raise self.backpressure.not_loaded(task)

    def _check_placement(self, task: Task) -> None:
        """Refuse a task that no replica can serve; not before all pools are known after a start."""
        suitable = self.registry.replicas.suitable(task.demand)
        servable = any(candidate.state is not PoolState.FAILED for candidate in suitable)
        if servable or not self.registry.synced:
            return
        problem = refusal(self.registry.replicas.all(), task.demand)
        if problem is None:
            return
        if problem.code is ErrorCode.POOL_UNREADY:
            retry_s = self.backpressure.retry_s(task.demand)
            raise self.backpressure.retry_later(503, problem.code, problem.message, problem.hint, wait_s=retry_s)
        body = ErrorBody(
            code=problem.code,
            message=_message(problem, task.request),
            reason=problem.reason,
            hint=problem.hint,
            retriable=problem.retriable,
            fields=_fields(problem, task.request),
        )
        raise ApiError(STATUS[problem.code], body)

    def _check_deadline(self, task: Task) -> None:
        """Refuse a task that would miss its deadline now rather than after a wait."""
        if not task.request.deadline_ms:
            return
        now = task.measurements.submitted_at
        position = self.queue.next_position(task.request.priority, task.share)
        if self.forecast.on_time(task, position, now) >= MIN_ON_TIME_PROBABILITY:
            return
        late_s = self.forecast.late_s(task, position, now)
        message = f"the task would end about {max(late_s, 0.001):.3g} s after its deadline"
        message += f" of {task.request.deadline_ms} ms"
        if self.forecast.on_time(task, -1, now) < MIN_ON_TIME_PROBABILITY:
            hint = "It takes longer even without a wait: allow more time, or ask for fewer tokens."
            raise ApiError(409, ErrorBody(code=ErrorCode.DEADLINE_UNMET, message=message, hint=hint))
        hint = "The queue is too long at present."
        raise self.backpressure.retry_later(409, ErrorCode.DEADLINE_UNMET, message, hint, wait_s=late_s)

    def _enqueue(self, task: Task) -> Entry:
        firm = task.share is None and self.backpressure.claim_reservation(task)
        try:
            admitted = self.queue.admit(
                task, task.request.priority, task.demand, task.size, firm=firm, share=task.share
            )
        except QueueFull as error:
            raise self.backpressure.queue_full(task) from error
        for dropped in admitted.dropped:
            retry_ms = self.backpressure.dropped_retry_ms(dropped)
            code = ErrorCode.QUEUE_FULL_DROP_LRU
            self.dispatcher.drop(dropped, code, DROPPED, retriable=True, retry_after_ms=retry_ms)
        return self._enqueued(task)

    def _enqueued(self, task: Task) -> Entry:
        self.book.add(task)
        if task.charge:
            task.charge.open(trio.current_time())
        task.trace = trace_of(task)
        if task.durable:
            task.on_delivery = partial(self.store.mark_delivered, task.task_id)
        self.metrics.admitted(self.registry.replicas.shared_labels(task.demand), task.request.priority)
        if session_id := task.request.session_id:
            tokens, price = task.request.max_tokens or task.request.expected_tokens, task_price(self.catalog, task)
            task.session_turn = self.sessions.open_turn(session_id, tokens, trio.current_time(), price=price)
        position, start_ms = self.position(task)
        task.log.append("started", {"queue_position": position, "predicted_start_ms": start_ms})
        emit(events.TASK_ADMITTED, job_id=task.job_id, position=position, correlation_id=task.correlation_id)
        task.reported_position = position
        task.reported_steps = tuple(steps_before(task.demand, self.registry))
        self.placer.admitted(task)
        return Entry(task, position, start_ms)

    def position(self, task: Task) -> tuple[int, int | None]:
        """Return how many tasks are ahead of `task`, and in how many milliseconds it starts (see `Forecast`)."""
        position = self.queue.position(task) or 0
        return position, self.forecast.start_ms(task.demand, position)


def _fields(problem: PlacementRefusal, request: TaskRequest) -> list[FieldProblem] | None:
    """Return the invalid fields; if the context is too small, the one that asks for the most."""
    if problem.max_ctx is None:
        return list(problem.fields) or None
    return [FieldProblem(field=_largest_field(request), problem=f"there is room for {problem.max_ctx}")]


def _message(problem: PlacementRefusal, request: TaskRequest) -> str:
    if problem.max_ctx is None:
        return problem.message
    return f"{_largest_field(request)} {max(request.ctx or 0, request.max_tokens or 0)}, room for {problem.max_ctx}"


def _largest_field(request: TaskRequest) -> str:
    return "ctx" if (request.ctx or 0) >= (request.max_tokens or 0) else "max_tokens"


def stored_task(task: Task) -> StoredTask:
    """Return `task` in the store's form."""
    return StoredTask(
        task_id=task.task_id,
        job_id=task.job_id,
        request=with_owner(task.request.model_dump_json(exclude_defaults=True), task.owner),
        correlation_id=task.correlation_id,
        submitted=task.measurements.submitted_wall.timestamp(),
        traceparent=task.traceparent,
        generation=task.generation,
    )


def task_id_of(text: str) -> UUID:
    """Parse the task id in a path. Raises ApiError 404 if it is not a UUID."""
    try:
        return UUID(text)
    except ValueError as error:
        raise unknown_task(text) from error


def unknown_task(text: str) -> ApiError:
    """Return the 404 for a task that is unknown, or forgotten."""
    hint = "Ended tasks are kept for a while only. See GET /v2/tasks."
    return ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message=f"there is no task {text[:64]}", hint=hint))
