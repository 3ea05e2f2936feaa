"""Every task the queen knows by its id: open ones always, ended ones for a while.

Ended tasks stay so that their streams can be resumed and their results read; what is kept is bounded in number and in
bytes, the oldest go first.
"""

from collections.abc import Iterator
from uuid import UUID

from queen_rbee.tasks.task import Task

KEPT_TASKS = 2000
KEPT_BYTES = 64 << 20


class TaskBook:
    """Tasks in the order of their admission."""

    def __init__(self, kept_tasks: int = KEPT_TASKS, kept_bytes: int = KEPT_BYTES) -> None:
        self._tasks: dict[UUID, Task] = {}
        self._ended: dict[UUID, int] = {}
        self._ended_bytes = 0
        self._kept_tasks = kept_tasks
        self._kept_bytes = kept_bytes

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: Task) -> None:
        """A new task; an ended one of the same id makes room for it. Raises KeyError while that is still open."""
        known = self._tasks.get(task.task_id)
        if known and not known.state.final:
            raise KeyError(task.task_id)
        if known:
            self._ended_bytes -= self._ended.pop(task.task_id)
            del self._tasks[task.task_id]
        self._tasks[task.task_id] = task

    def get(self, task_id: UUID) -> Task | None:
        """The task, if it is known (still)."""
        return self._tasks.get(task_id)

    def newest_first(self) -> Iterator[Task]:
        """All tasks known."""
        return iter(reversed(self._tasks.values()))

    def ended(self, task: Task) -> None:
        """`task` has ended: it may go when newer ones need its place."""
        self._ended[task.task_id] = task.log.size
        self._ended_bytes += task.log.size
        while len(self._ended) > self._kept_tasks or self._ended_bytes > self._kept_bytes:
            oldest = next(iter(self._ended))
            self._ended_bytes -= self._ended.pop(oldest)
            del self._tasks[oldest]
