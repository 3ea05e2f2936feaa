"""orchctl tasks and cancel."""

import argparse
from collections.abc import Sequence

from llama_orch.contracts.tasks import TaskList, TaskState, TaskView
from orchctl.client import QueenClient, below
from orchctl.command import Commands, identifier, paged
from orchctl.errors import CommandError, together
from orchctl.output import show
from orchctl.paging import show_pages
from orchctl.submit.submit import cancel
from orchctl.tables import age, ms, one_line, table, whole

HEADER = ("TASK", "STATE", "AGE", "QUEUED", "FIRST", "TOKENS", "POOL", "ERROR")


def add(commands: Commands) -> None:
    """Add the commands `tasks` and `cancel`."""
    command = commands.add("tasks", tasks, "the tasks, the newest first, or one task")
    command.add_argument("id", nargs="?", type=identifier, help="show all that is known of this one")
    command.add_argument("--state", choices=[*map(str, TaskState)], help="only those in this state")
    paged(command)
    command = commands.add("cancel", cancel_each, "cancel tasks")
    command.add_argument("ids", nargs="+", type=identifier, metavar="ID", help="task to cancel")


async def tasks(options: argparse.Namespace, queen: QueenClient) -> None:
    """A table of tasks, or everything about one. Raises CommandError."""
    if options.id:
        show(options.json, await queen.get(below("/v2/tasks", options.id)), TaskView, whole)
        return
    await show_pages(queen, "/v2/tasks", options, TaskList, tasks_text, state=options.state)


def tasks_text(found: Sequence[TaskList]) -> str:
    """One line a task; times are in milliseconds from its admission."""
    rows = [_row(task) for page in found for task in page.tasks]
    return table([HEADER, *rows]) if rows else "there are no such tasks"


def _row(task: TaskView) -> tuple[str, ...]:
    times, error = task.timings, task.error
    return (
        str(task.task_id),
        task.state,
        age(times.submitted_at),
        ms(times.queued_ms),
        ms(times.first_token_ms),
        str(task.usage.tokens_out),
        one_line(task.pool_id),
        one_line(f"{error.code}: {error.message}" if error else None),
    )


async def cancel_each(options: argparse.Namespace, queen: QueenClient) -> None:
    """Cancel every task named, also those behind one that cannot be. Raises CommandError for all that could not."""
    failures = []
    for task_id in options.ids:
        try:
            await cancel(queen, task_id)
        except CommandError as failure:
            failures.append(failure)
    if failures:
        raise together(failures)
