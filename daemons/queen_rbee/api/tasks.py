"""The hot paths: POST /v2/tasks, its event stream, and cancel."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import dropwhile, islice
from uuid import UUID

import trio
from pydantic import ValidationError

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.tasks import TaskList, TaskRequest, TaskState, TaskView
from llama_orch.http.server.bodies import invalid, read
from llama_orch.http.server.exchange import Exchange, HotRoutes
from llama_orch.http.server.json_scan import Shape
from llama_orch.telemetry.correlation import current, traceparent
from queen_rbee.api.paging import Page, uuid_before
from queen_rbee.api.streaming import ATTEND_S, COALESCE_S, KEEP_ALIVE, KEEP_ALIVE_S, STREAM_HEADERS, until_gone
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.intake.intake import Intake, task_id_of, unknown_task
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.store.protocol import Document, Store
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.task import Task

TASK_LIMIT = 8 << 20
"""Bytes: a task is text, and the store takes it whole."""
TASK_SHAPE = Shape(values=4_000, nodes=100)
NO_BODY = 64 << 10
"""Bytes of a body that nobody reads."""
VERBOSE = {"true": True, "false": False, "1": True, "0": False, "True": True, "False": False}
"""What `?verbose=` may be; Python's clients write the last two."""


class HotHandlers:
    """Handlers over one dispatcher and its intake."""

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

    def add_to(self, routes: HotRoutes) -> None:
        """Add the routes of tasks."""
        routes.add("POST", "/v2/tasks", self.submit)
        routes.add("GET", "/v2/tasks/{task_id}/events", self.events)
        routes.add("POST", "/v2/tasks/{task_id}/cancel", self.cancel)

    async def submit(self, exchange: Exchange) -> None:
        """202 with where the task stands, or why not."""
        request = await read(exchange, TaskRequest, TASK_SHAPE, min(TASK_LIMIT, exchange.body_limit))
        _task, answer = await self._intake.submit(request, current.get() or "", traceparent.get())
        headers = [("x-queue-position", str(answer.queue_position)), ("content-type", "application/json")]
        if session_id := request.session_id:
            headers += self._sessions.budget_headers(session_id)
        await exchange.send(202, answer.model_dump_json().encode(), headers)

    async def events(self, exchange: Exchange) -> None:
        """The task's events as they come, from behind Last-Event-ID on. Leaving does not cancel the task."""
        task = self._known(exchange)
        last_id, verbose = _last_event_id(exchange.headers), _wants_narration(exchange.query)
        await exchange.body(NO_BODY)
        await exchange.open_stream(200, [*STREAM_HEADERS, *_headers(task)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_gone, exchange, nursery.cancel_scope)
            task.log.readers += 1
            try:
                await self._send_events(exchange, task, last_id, verbose)
            finally:
                task.log.readers -= 1
            nursery.cancel_scope.cancel()

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
            waits = task.state is TaskState.QUEUED
            with trio.move_on_at(min(due, trio.current_time() + ATTEND_S) if waits else due):
                await task.log.wait_beyond(last_id)

    async def cancel(self, exchange: Exchange) -> None:
        """204, also when the task has already ended."""
        task = self._known(exchange)
        await exchange.body(NO_BODY)
        self._dispatcher.cancel(task)
        await exchange.send(204)

    def _known(self, exchange: Exchange) -> Task:
        text = exchange.variables["task_id"]
        task = self._book.get(task_id_of(text))
        if task is None:
            raise unknown_task(text)
        return task


def _headers(task: Task) -> list[tuple[str, str]]:
    """What is known by now of where and how the task runs."""
    found = [("x-queue-position", str(task.reported_position or 0))] if task.state is TaskState.QUEUED else []
    found += [("x-llama-orch-pool", task.place.pool_id)] if task.place.pool_id else []
    return found + (
        [("x-llama-orch-overhead-ms", f"{task.measurements.overhead_ms:g}")]
        if task.measurements.overhead_ms is not None
        else []
    )


def _wants_narration(query: Mapping[str, str]) -> bool:
    """Whether `?verbose=` says so. Raises ApiError 400 where it says something else."""
    text = query.get("verbose", "false")
    if text not in VERBOSE:
        raise ApiError(400, invalid([("verbose", f"must be one of {', '.join(VERBOSE)}")]))
    return VERBOSE[text]


def _last_event_id(headers: Mapping[str, str]) -> int:
    """The id after which the client wants to go on; anything that is no id means from the start."""
    text = headers.get("last-event-id", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0


BATCH = 100


@dataclass(frozen=True)
class TaskListing:
    """`view` shows a task that is in memory."""

    book: TaskBook
    store: Store
    view: Callable[[Task], TaskView]

    async def page(self, state: TaskState | None, page: Page) -> TaskList:
        """The tasks of one state (or all) behind the task `page.before`. Raises ApiError 400, StoreFailure."""
        before, wanted = uuid_before(page), page.limit + 1
        in_memory = before is None or self.book.get(before) is not None
        found = self._in_memory(state, before, wanted) if in_memory else []
        if len(found) < wanted and (state is None or state.final):
            found += await self._recorded(state, None if in_memory else str(before), wanted - len(found))
        tasks = found[: page.limit]
        return TaskList(tasks=tasks, count=len(tasks), next=str(tasks[-1].task_id) if len(found) == wanted else None)

    def _in_memory(self, state: TaskState | None, before: UUID | None, wanted: int) -> list[TaskView]:
        tasks = self.book.newest_first()
        if before:
            tasks = islice(dropwhile(lambda task: task.task_id != before, tasks), 1, None)
        return [self.view(task) for task in islice((t for t in tasks if state in (None, t.state)), wanted)]

    async def _recorded(self, state: TaskState | None, before: str | None, wanted: int) -> list[TaskView]:
        found: list[TaskView] = []
        batch = [Document("", "")] * BATCH
        while len(batch) == BATCH and len(found) < wanted:
            batch = [*await self.store.list_documents("record", tag=state, before=before, limit=BATCH)]
            before = batch[-1].key if batch else before
            views = [view for document in batch if (view := _read(document))]
            found += [view for view in views if self.book.get(view.task_id) is None]
        return found[:wanted]


def _read(document: Document) -> TaskView | None:
    """The task's last view; None where another release wrote what this one does not read."""
    try:
        return TaskView.model_validate_json(document.body)
    except ValidationError:
        return None
