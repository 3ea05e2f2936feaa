"""Admission: from a request to a waiting task, or to the refusal that says why not and when to try again.

Everything is checked before the task stands in the queue, and nothing waits in between, so that what was checked is
still so when it stands there. What a client of /v2 was told that it is accepted, the store has.
"""

from functools import partial
from uuid import UUID

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import Preparation, Streams, TaskAccepted, TaskRequest
from llama_orch.engines.wire.passage import Passage, passage_for
from llama_orch.http.server.bodies import invalid
from llama_orch.telemetry import correlation
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.estimates import HOPELESS, backoff_ms
from queen_rbee.dispatch.queue import QueueFull
from queen_rbee.dispatch.rooms import fitted
from queen_rbee.intake.backpressure import Backpressure
from queen_rbee.pools.model_lookup import resolve_request
from queen_rbee.pools.placement import PlacementRefusal, refusal
from queen_rbee.store.protocol import Store, StoredTask, StoreFailure, not_stored
from queen_rbee.tasks.task import Task

STATUS = {ErrorCode.INVALID_PARAMS: 400, ErrorCode.POOL_UNAVAILABLE: 409, ErrorCode.POOL_UNREADY: 503}
DROPPED = "dropped from a full queue for a newer task (policy drop-lru)"


class Intake:
    """Takes tasks in until it is closed."""

    def __init__(self, dispatcher: Dispatcher, store: Store) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._pressure = Backpressure(dispatcher)
        self._closed = False

    def close(self) -> None:
        """Take nothing more: the daemon is stopping."""
        self._closed = True

    def admit(
        self,
        request: TaskRequest,
        correlation_id: str,
        traceparent: str | None = None,
        passage: Passage | None = None,
        *,
        durable: bool = False,
    ) -> Task:
        """A task that waits now. Raises ApiError with what is wrong and, where waiting helps, for how long.

        Unless it is `durable` it lives no longer than the queen: what a client waits for on the same connection.
        """
        if self._closed:
            raise self._pressure.busy(503, ErrorCode.ADMISSION_REJECT, "queen-rbee is stopping")
        request = resolve_request(request, self._dispatcher.accounting.catalog, self._dispatcher.registry.replicas)
        if passage:
            request = fitted(request, passage, self._dispatcher.registry.replicas)
        passage = passage or passage_for(request)
        now = trio.current_time()
        client = correlation.peer.get() or ""
        task = Task(request, correlation_id, now, passage, traceparent=traceparent, durable=durable, client=client)
        self._check(task)
        self._enter(task)
        return task

    async def submit(
        self, request: TaskRequest, correlation_id: str, traceparent: str | None = None
    ) -> tuple[Task, TaskAccepted]:
        """Admit `request` so that it survives the queen, and what to answer. Raises ApiError as `admit` does."""
        task = self.admit(request, correlation_id, traceparent, durable=True)
        answer = self._accepted(task)
        try:
            await self._store.accept(stored(task))
        except StoreFailure as failure:
            self._forget(task)
            raise not_stored(failure) from failure
        except trio.Cancelled:
            self._forget(task)
            raise
        return task, answer

    def _forget(self, task: Task) -> None:
        """Its client was not told that it is accepted."""
        task.durable = False
        self._dispatcher.cancel(task)

    def restore(self, task: Task) -> None:
        """A task that was accepted before a restart waits again, whatever the queue's capacity."""
        self._dispatcher.queue.restore(task, task.request.priority, task.demand, task.size)
        self._waits(task)

    def _check(self, task: Task) -> None:
        known = self._dispatcher.book.get(task.task_id)
        if known and not (known.error and known.error.retriable):
            raise ApiError(409, invalid([("task_id", "is already taken by another task")]))
        self._placeable(task)
        self._in_time(task)
        if session_id := task.request.session_id:
            accounting = self._dispatcher.accounting
            wanted = task.request.max_tokens or task.request.expected_tokens
            refused = accounting.sessions.check(session_id, wanted, trio.current_time(), price=accounting.price(task))
            if refused:
                raise refused

    def _placeable(self, task: Task) -> None:
        """Refuse what nothing here can serve; while pools are still being asked, nothing is refused."""
        registry = self._dispatcher.registry
        servable = any(candidate.state is not PoolState.FAILED for candidate in registry.replicas.suitable(task.demand))
        found = refusal(registry.replicas.all(), task.demand) if registry.synced and not servable else None
        if found is None:
            return
        if found.code is ErrorCode.POOL_UNREADY:
            again_s = self._dispatcher.again_s(task.demand)
            raise self._pressure.busy(503, found.code, found.message, found.hint, wait_s=again_s)
        body = ErrorBody(
            code=found.code,
            message=_sized(found, task.request),
            reason=found.reason,
            hint=found.hint,
            retriable=found.retriable,
            fields=_fields(found, task.request),
        )
        raise ApiError(STATUS[found.code], body)

    def _in_time(self, task: Task) -> None:
        """Refuse what would miss its deadline: at once, not when it has waited for nothing."""
        forecast, now = self._dispatcher.forecast, task.submitted_at
        position = self._dispatcher.queue.next_position(task.request.priority)
        if not task.request.deadline_ms or forecast.on_time(task, position, now) >= HOPELESS:
            return
        late_s = forecast.late_s(task, position, now)
        message = f"it would end about {max(late_s, 0.001):.3g} s after its deadline of {task.request.deadline_ms} ms"
        if forecast.on_time(task, -1, now) < HOPELESS:
            hint = "Even without a wait it takes longer: give it more time, or ask for fewer tokens."
            raise ApiError(409, ErrorBody(code=ErrorCode.DEADLINE_UNMET, message=message, hint=hint))
        hint = "The queue is too long for it now."
        raise self._pressure.busy(409, ErrorCode.DEADLINE_UNMET, message, hint, wait_s=late_s)

    def _enter(self, task: Task) -> None:
        dispatcher = self._dispatcher
        firm = self._pressure.let_in(task)
        try:
            admitted = dispatcher.queue.admit(task, task.request.priority, task.demand, task.size, firm=firm)
        except QueueFull as error:
            raise self._pressure.refused(task) from error
        for dropped in admitted.dropped:
            wait_ms = self._pressure.dropped(dropped)
            dispatcher.drop(dropped, ErrorCode.QUEUE_FULL_DROP_LRU, DROPPED, retriable=True, retry_after_ms=wait_ms)
        self._waits(task)

    def _waits(self, task: Task) -> None:
        dispatcher = self._dispatcher
        dispatcher.book.add(task)
        if task.durable:
            task.on_delivery = partial(self._store.mark_delivered, task.task_id)
        dispatcher.metrics.admitted(dispatcher.registry.replicas.shared_labels(task.demand), task.request.priority)
        if session_id := task.request.session_id:
            accounting = dispatcher.accounting
            wanted = task.request.max_tokens or task.request.expected_tokens
            task.turn = accounting.sessions.begin(session_id, wanted, trio.current_time(), price=accounting.price(task))
        position, start_ms = self.position(task)
        task.log.append("started", {"queue_position": position, "predicted_start_ms": start_ms})
        task.told_position = position
        dispatcher.admitted(task)

    def position(self, task: Task) -> tuple[int, int | None]:
        """How many tasks go before `task`, and in how many milliseconds it will probably start (see `Forecast`)."""
        position = self._dispatcher.queue.position(task) or 0
        return position, self._dispatcher.forecast.start_ms(task.demand, position)

    def _accepted(self, task: Task) -> TaskAccepted:
        path = f"/v2/tasks/{task.task_id}/events"
        position = task.told_position or 0
        return TaskAccepted(
            task_id=task.task_id,
            job_id=task.job_id,
            queue_position=position,
            predicted_start_ms=self._dispatcher.forecast.start_ms(task.demand, position),
            backoff_ms=backoff_ms(self._dispatcher.again_s(task.demand)) if position else 0,
            streams=Streams(sse=path, sse_verbose=f"{path}?verbose=true"),
            preparation=Preparation(),
        )


def _fields(found: PlacementRefusal, request: TaskRequest) -> list[FieldProblem] | None:
    """The fields that are wrong; where the context is too small, the one that asks for the most."""
    if found.max_ctx is None:
        return list(found.fields) or None
    return [FieldProblem(field=_largest(request), problem=f"there is room for {found.max_ctx}")]


def _sized(found: PlacementRefusal, request: TaskRequest) -> str:
    if found.max_ctx is None:
        return found.message
    return f"{_largest(request)} {max(request.ctx or 0, request.max_tokens or 0)}, room for {found.max_ctx}"


def _largest(request: TaskRequest) -> str:
    return "ctx" if (request.ctx or 0) >= (request.max_tokens or 0) else "max_tokens"


def stored(task: Task) -> StoredTask:
    """`task` as the store keeps it."""
    return StoredTask(
        task_id=task.task_id,
        job_id=task.job_id,
        request=task.request.model_dump_json(exclude_defaults=True),
        correlation_id=task.correlation_id,
        submitted=task.submitted_wall.timestamp(),
        traceparent=task.traceparent,
        generation=task.generation,
    )


def task_id_of(text: str) -> UUID:
    """The UUID in a path. Raises ApiError 404 where it is none."""
    try:
        return UUID(text)
    except ValueError as error:
        raise unknown_task(text) from error


def unknown_task(text: str) -> ApiError:
    """The answer about a task that is not (or no longer) known."""
    hint = "Ended tasks are kept for a while only. See GET /v2/tasks."
    return ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message=f"there is no task {text[:64]}", hint=hint))
