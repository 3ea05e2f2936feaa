"""Routes that show tasks, in memory or recorded in the store."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import dropwhile, islice
from uuid import UUID

from pydantic import ValidationError
from quart import Response, request

from llama_orch.contracts.tasks import TaskList, TaskState, TaskView
from llama_orch.http.server.mounting import json_response
from llama_orch.http.server.routes import JSON, Parameter, json_reply, route
from queen_rbee.api.paging import PageRequest, before_as_uuid, requested_page
from queen_rbee.api.parameters import LIMIT, before
from queen_rbee.api.parameters import UUID as UUID_SCHEMA
from queen_rbee.intake.intake import Intake, task_id_of, unknown_task
from queen_rbee.keys.keyring import holder_name, may_see
from queen_rbee.store.protocol import Document, Store
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.task import Task

BATCH = 100


class TaskListingRoutes:
    """`store` has the records of tasks that ended long ago or before a restart."""

    def __init__(self, book: TaskBook, intake: Intake, store: Store) -> None:
        self._book = book
        self._intake = intake
        self._store = store
        self._listing = TaskListing(book, store, partial(_view, intake))

    @route(
        "GET",
        "/v2/tasks",
        "List tasks, newest first",
        {200: json_reply("The tasks.", TaskList, task_id="/tasks/0/task_id")},
        parameters=(
            Parameter(
                "state",
                "Only tasks in this state.",
                {"type": "string", "enum": [state.value for state in TaskState]},
            ),
            LIMIT,
            before(UUID_SCHEMA),
        ),
    )
    async def list_tasks(self) -> TaskList:
        state = request.args.get("state")
        valid = state is None or state in set(TaskState)
        page = requested_page([] if valid else [("state", f"must be one of {', '.join(TaskState)}")])
        return await self._listing.page(TaskState(state) if state else None, page)

    @route("GET", "/v2/tasks/{task_id}", "Get a task", {200: json_reply("The task.", TaskView)}, errors=(503,))
    async def get_task(self, task_id: str) -> Response:
        identifier = task_id_of(task_id)
        if task := self._book.get(identifier):
            if may_see(task.owner):
                return json_response(_view(self._intake, task))
        elif (record := await self._store.get("record", str(identifier))) and _may_see_record(record):
            return Response(record.body, content_type=JSON)
        raise unknown_task(task_id)


@dataclass(frozen=True)
class TaskListing:
    """Pages over the tasks in memory, then those in the store. `view` renders a task that is in memory."""

    book: TaskBook
    store: Store
    view: Callable[[Task], TaskView]

    async def page(self, state: TaskState | None, page: PageRequest) -> TaskList:
        """Return the tasks in `state` (None: any) after the task `page.before`. Raises ApiError 400, StoreFailure."""
        before, count = before_as_uuid(page), page.limit + 1
        in_memory = before is None or self.book.get(before) is not None
        found = self._in_memory(state, before, count) if in_memory else []
        if len(found) < count and (state is None or state.final):
            found += await self._recorded(state, None if in_memory else str(before), count - len(found))
        tasks = found[: page.limit]
        return TaskList(tasks=tasks, count=len(tasks), next=str(tasks[-1].task_id) if len(found) == count else None)

    def _in_memory(self, state: TaskState | None, before: UUID | None, count: int) -> list[TaskView]:
        tasks = self.book.newest_first()
        if before:
            tasks = islice(dropwhile(lambda task: task.task_id != before, tasks), 1, None)
        found = (task for task in tasks if state in (None, task.state) and may_see(task.owner))
        return [self.view(task) for task in islice(found, count)]

    async def _recorded(self, state: TaskState | None, before: str | None, count: int) -> list[TaskView]:
        found: list[TaskView] = []
        batch = [Document("", "")] * BATCH
        while len(batch) == BATCH and len(found) < count:
            batch = [*await self.store.list_documents("record", tag=state, before=before, limit=BATCH)]
            before = batch[-1].key if batch else before
            views = [view for document in batch if (view := _parse(document)) and may_see(view.key)]
            found += [view for view in views if self.book.get(view.task_id) is None]
        return found[:count]


def _parse(document: Document) -> TaskView | None:
    """Return the recorded view of a task, or None if another release wrote it in a form that this one cannot read."""
    try:
        return TaskView.model_validate_json(document.body)
    except ValidationError:
        return None


def _may_see_record(record: Document) -> bool:
    if holder_name() is None:
        return True
    view = _parse(record)
    return view is not None and may_see(view.key)


def _view(intake: Intake, task: Task) -> TaskView:
    if task.state is TaskState.QUEUED:
        return task.view(*intake.position(task))
    return task.view()
