"""GET /v2/tasks: the tasks in memory, newest first, and behind them the records of those that ended before."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import dropwhile, islice
from uuid import UUID

from pydantic import ValidationError

from llama_orch.contracts.tasks import TaskList, TaskState, TaskView
from queen_rbee.api.paging import Page, uuid_before
from queen_rbee.store.protocol import Document, Store
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.task import Task

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
            batch = [*await self.store.listed("record", tag=state, before=before, limit=BATCH)]
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
