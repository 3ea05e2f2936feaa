"""The tasks that queen-rbee knows by id: all open ones, and recently ended ones.

Ended tasks stay so that their streams can be resumed and their results read. They are bounded in number and in bytes;
the oldest are dropped first.
"""

from collections.abc import Iterator
from uuid import UUID

from queen_rbee.tasks.task import Task

MAX_ENDED_TASKS = 2000
MAX_ENDED_BYTES = 64 << 20


class TaskBook:
    """Tasks in the order of their admission."""

    def __init__(self, max_ended_tasks: int = MAX_ENDED_TASKS, max_ended_bytes: int = MAX_ENDED_BYTES) -> None:
        self._tasks: dict[UUID, Task] = {}
        self._ended_sizes: dict[UUID, int] = {}
        self._ended_bytes = 0
        self._max_ended_tasks = max_ended_tasks
        self._max_ended_bytes = max_ended_bytes

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: Task) -> None:
        """Add a task, in place of an ended one of the same id. Raises KeyError if that one is still open."""
        known = self._tasks.get(task.task_id)
        if known and not known.state.final:
            raise KeyError(task.task_id)
        if known:
            self._ended_bytes -= self._ended_sizes.pop(task.task_id)
            del self._tasks[task.task_id]
        self._tasks[task.task_id] = task

    def get(self, task_id: UUID) -> Task | None:
        return self._tasks.get(task_id)

    def newest_first(self) -> Iterator[Task]:
        return iter(reversed(self._tasks.values()))

    def mark_ended(self, task: Task) -> None:
        """Let `task` be dropped once newer ended tasks fill the limits."""
        self._ended_sizes[task.task_id] = task.log.size
        self._ended_bytes += task.log.size
        while len(self._ended_sizes) > self._max_ended_tasks or self._ended_bytes > self._max_ended_bytes:
            oldest = next(iter(self._ended_sizes))
            self._ended_bytes -= self._ended_sizes.pop(oldest)
            del self._tasks[oldest]
