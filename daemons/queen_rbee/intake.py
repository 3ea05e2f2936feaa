"""Admission: from a request to a waiting task, or to the refusal that says why not and when to try again."""

from collections.abc import Iterable
from uuid import UUID

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.contracts.tasks import Preparation, Streams, TaskAccepted, TaskRequest
from queen_rbee.admission import QueueFull
from queen_rbee.candidates import demand_of
from queen_rbee.dispatcher import Dispatcher
from queen_rbee.estimates import backoff_ms, predicted_start_ms
from queen_rbee.placement import refusal
from queen_rbee.task import Task

STATUS = {ErrorCode.INVALID_PARAMS: 400, ErrorCode.POOL_UNAVAILABLE: 409, ErrorCode.POOL_UNREADY: 503}
DROPPED = "dropped from a full queue for a newer task (policy drop-lru)"


class Intake:
    """Takes tasks in until it is closed."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._closed = False

    def close(self) -> None:
        """Take nothing more: the daemon is stopping."""
        self._closed = True

    def submit(
        self, request: TaskRequest, correlation_id: str, traceparent: str | None = None
    ) -> tuple[Task, TaskAccepted]:
        """Admit `request`. Raises ApiError with what is wrong and, where waiting helps, for how long."""
        if self._closed:
            raise self._busy(503, ErrorCode.ADMISSION_REJECT, "queen-rbee is stopping", None)
        _complete(request)
        self._placeable(request)
        now = trio.current_time()
        task = Task(request, correlation_id, now, traceparent=traceparent)
        self._enter(task)
        answer = self._accepted(task)
        started = {"queue_position": answer.queue_position, "predicted_start_ms": answer.predicted_start_ms}
        task.log.append("started", started)
        self._dispatcher.admitted(task)
        return task, answer

    def _enter(self, task: Task) -> None:
        dispatcher = self._dispatcher
        if dispatcher.book.get(task.task_id):
            raise ApiError(409, invalid([("task_id", "is already taken by another task")]))
        try:
            admitted = dispatcher.queue.admit(task, task.request.priority, task.submitted_at)
        except QueueFull as error:
            label = dispatcher.queue.policy
            dispatcher.metrics.backpressure.labels(task.request.engine or "", label).inc()
            dispatcher.metrics.rejected.labels(task.request.engine or "", ErrorCode.ADMISSION_REJECT.value).inc()
            message = f"the queue is full ({dispatcher.queue.capacity} tasks wait)"
            raise self._busy(429, ErrorCode.ADMISSION_REJECT, message, label) from error
        dispatcher.book.add(task)
        dispatcher.metrics.enqueued.labels("", "", "", "", task.request.priority).inc()
        if admitted.dropped:
            dispatcher.metrics.backpressure.labels(task.request.engine or "", dispatcher.queue.policy).inc()
            dispatcher.drop(admitted.dropped, ErrorCode.QUEUE_FULL_DROP_LRU, DROPPED, retriable=True)

    def _placeable(self, request: TaskRequest) -> None:
        """Refuse what nothing here can serve; while pools are still being asked, nothing is refused."""
        registry = self._dispatcher.registry
        found = refusal(registry.candidates(), demand_of(request)) if registry.synced else None
        if found is None:
            return
        if found.code is ErrorCode.POOL_UNREADY:
            raise self._busy(503, found.code, found.message, None, found.hint)
        body = ErrorBody(code=found.code, message=found.message, hint=found.hint, retriable=found.retriable)
        raise ApiError(STATUS[found.code], body)

    def position(self, task: Task) -> tuple[int, int]:
        """How many tasks go before `task`, and in how many milliseconds it will probably start."""
        dispatcher = self._dispatcher
        total, free = dispatcher.registry.slots()
        position = dispatcher.queue.position(task) or 0
        return position, predicted_start_ms(position, total, free, dispatcher.times)

    def _accepted(self, task: Task) -> TaskAccepted:
        position, start_ms = self.position(task)
        path = f"/v2/tasks/{task.task_id}/events"
        return TaskAccepted(
            task_id=task.task_id,
            job_id=task.job_id,
            queue_position=position,
            predicted_start_ms=start_ms,
            backoff_ms=0,
            streams=Streams(sse=path, sse_verbose=f"{path}?verbose=true"),
            preparation=Preparation(),
        )

    def _busy(self, status: int, code: ErrorCode, message: str, label: str | None, hint: str | None = None) -> ApiError:
        """A refusal that tells when to come back, measured from how fast the queue moves."""
        wait_ms = backoff_ms(self._dispatcher.registry.slots()[0], self._dispatcher.times)
        headers = (("retry-after", str(-(-wait_ms // 1000))), ("x-backoff-ms", str(wait_ms)))
        body = ErrorBody(
            code=code, message=message, hint=hint, retriable=True, retry_after_ms=wait_ms, policy_label=label
        )
        return ApiError(status, body, headers)


def _complete(request: TaskRequest) -> None:
    """What a completion needs, and what this release does not serve."""
    problems = []
    if request.workload != "completion":
        problems.append(("workload", "only completion is served by this release"))
    elif request.prompt is None:
        problems.append(("prompt", "is missing and required for a completion"))
    if problems:
        raise ApiError(400, invalid(problems))


def invalid(problems: Iterable[tuple[str, str]]) -> ErrorBody:
    """The body of a 400 that names each wrong field."""
    fields = [FieldProblem(field=field, problem=problem) for field, problem in problems]
    text = "; ".join(f"{item.field}: {item.problem}" for item in fields)
    return ErrorBody(code=ErrorCode.INVALID_PARAMS, message=text, fields=fields)


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
