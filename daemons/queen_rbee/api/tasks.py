"""Routes of tasks on the hot path: submission, event stream and cancellation."""

from collections.abc import Mapping

import trio

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.tasks import TaskAccepted, TaskRequest, TaskState
from llama_orch.http.server.bodies import invalid, read
from llama_orch.http.server.exchange import Exchange
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.preferences import applied, preferred_wait_s
from llama_orch.http.server.routes import JSON, Deferred, Parameter, Reply, RequestBody, gate_route, json_reply
from llama_orch.telemetry.correlation import current, traceparent
from queen_rbee.api.parameters import BUDGET_HEADERS, EVENT_STREAM, PLACE_HEADERS, PREFER, TEXT
from queen_rbee.api.streaming import (
    COALESCE_S,
    KEEP_ALIVE,
    KEEP_ALIVE_S,
    STREAM_HEADERS,
    TOUCH_INTERVAL_S,
    cancel_when_gone,
)
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.intake.intake import Intake, task_id_of, unknown_task
from queen_rbee.keys.keyring import may_see
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.task import Task

TASK = RequestBody(
    TaskRequest,
    {
        "completion": {"prompt": "The queen", "max_tokens": 40},
        "embedding": {"workload": "embedding", "inputs": ["The queen", "The bees"]},
        "rerank": {"workload": "rerank", "prompt": "Who reigns?", "inputs": ["The queen", "The bees"]},
    },
    Shape(values=4_000, nodes=100),
)
TASK_LIMIT = 8 << 20
"""Bytes. The store writes a task as a whole."""
IGNORED_BODY_LIMIT = 64 << 10
"""Bytes that a request may carry where no body is expected."""
BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "True": True, "False": False}
"""Values of `?verbose=`. Python clients send the last two."""
QUEUED = json_reply(
    "The task is queued.",
    TaskAccepted,
    "X-Queue-Position",
    "Preference-Applied",
    *BUDGET_HEADERS,
    task_id="/task_id",
)
EVENTS = Reply("The stream.", {EVENT_STREAM: Deferred("queen_rbee.api.openapi.schemas", "TASK_EVENTS")}, PLACE_HEADERS)


class TaskRoutes:
    def __init__(
        self,
        intake: Intake,
        dispatcher: Dispatcher,
        queue: AdmissionQueue[Task],
        book: TaskBook,
        sessions: Sessions,
    ) -> None:
        self._intake = intake
        self._dispatcher = dispatcher
        self._queue = queue
        self._book = book
        self._sessions = sessions

    @gate_route(
        "POST",
        "/v2/tasks",
        "Submit a task",
        {202: QUEUED},
        body=TASK,
        parameters=(PREFER,),
        errors=(404, 409, 429, 503),
        traced=True,
    )
    async def submit_task(self, exchange: Exchange) -> None:
        request = await read(exchange, TaskRequest, TASK.shape, min(TASK_LIMIT, exchange.body_limit))
        preferred = preferred_wait_s(exchange.headers.get("prefer"))
        if preferred is not None:
            request = request.model_copy(update={"wait_s": preferred})
        accepted = await self._intake.submit(request, current.get() or "", traceparent.get())
        headers = [("x-queue-position", str(accepted.position)), ("content-type", JSON), *applied(preferred)]
        if session_id := request.session_id:
            headers += self._sessions.budget_headers(session_id)
        await exchange.send(202, accepted.body, headers)

    @gate_route(
        "GET",
        "/v2/tasks/{task_id}/events",
        "Stream the events of a task",
        {200: EVENTS},
        parameters=(
            Parameter(
                "verbose",
                "Whether to include `narration` events.",
                {"type": "string", "enum": [*BOOLEANS], "default": "false"},
            ),
            Parameter(
                "Last-Event-ID",
                "Resume after this event. A value that is not an id starts from the beginning.",
                TEXT,
                "header",
            ),
        ),
        description="Any number of clients may read at once, each from the beginning or from `Last-Event-ID`. "
        "Disconnecting does not cancel the task. Comments keep the connection alive. `end` or `error` is the last "
        "event.",
    )
    async def read_events(self, exchange: Exchange) -> None:
        task = self._known(exchange)
        last_id, verbose = _last_event_id(exchange.headers), _verbose(exchange.query)
        await exchange.body(IGNORED_BODY_LIMIT)
        await exchange.open_stream(200, [*STREAM_HEADERS, *_headers(task)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_gone, exchange, nursery.cancel_scope)
            task.log.readers += 1
            try:
                await self._send_events(exchange, task, last_id, verbose)
            finally:
                task.log.readers -= 1
            nursery.cancel_scope.cancel()

    @gate_route(
        "POST",
        "/v2/tasks/{task_id}/cancel",
        "Cancel a task",
        {204: Reply("The task has ended, now or earlier. No more tokens follow.")},
    )
    async def cancel_task(self, exchange: Exchange) -> None:
        task = self._known(exchange)
        await exchange.body(IGNORED_BODY_LIMIT)
        self._dispatcher.cancel(task)
        await exchange.send(204)

    async def _send_events(self, exchange: Exchange, task: Task, last_id: int, verbose: bool) -> None:
        due = trio.current_time() + KEEP_ALIVE_S
        while True:
            self._queue.attend(task)
            data, last_id = task.log.after(last_id, verbose)
            task.deliver()
            behind = last_id < task.log.last_id
            if task.log.closed and not behind:
                await exchange.finish(data)
                return
            if not data and trio.current_time() >= due:
                data = KEEP_ALIVE
            if data:
                await exchange.write(data)
                due = trio.current_time() + KEEP_ALIVE_S
            if task.answer_started and not behind:
                await trio.sleep(COALESCE_S)
            queued = task.state is TaskState.QUEUED
            with trio.move_on_at(min(due, trio.current_time() + TOUCH_INTERVAL_S) if queued else due):
                await task.log.wait_beyond(last_id)

    def _known(self, exchange: Exchange) -> Task:
        text = exchange.variables["task_id"]
        task = self._book.get(task_id_of(text))
        if task is None or not may_see(task.owner):
            raise unknown_task(text)
        return task


def _headers(task: Task) -> list[tuple[str, str]]:
    """The headers whose values are known by now."""
    headers = [("x-queue-position", str(task.reported_position or 0))] if task.state is TaskState.QUEUED else []
    headers += [("x-llama-orch-pool", task.place.pool_id)] if task.place.pool_id else []
    return headers + (
        [("x-llama-orch-overhead-ms", f"{task.measurements.overhead_ms:g}")]
        if task.measurements.overhead_ms is not None
        else []
    )


def _verbose(query: Mapping[str, str]) -> bool:
    """Read `?verbose=`. Raises ApiError 400."""
    text = query.get("verbose", "false")
    if text not in BOOLEANS:
        raise ApiError(400, invalid([("verbose", f"must be one of {', '.join(BOOLEANS)}")]))
    return BOOLEANS[text]


def _last_event_id(headers: Mapping[str, str]) -> int:
    text = headers.get("last-event-id", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0
