"""orchctl tasks: list tasks, or show one."""

import argparse
from collections.abc import Iterator, Sequence

from llama_orch.contracts.tasks import TaskList, TaskState, TaskView
from orchctl.client import QueenClient, build_path
from orchctl.command import PAGE_ARGUMENTS, CliCommand, ListedValues, argument, identifier
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.paging import print_pages
from orchctl.tables import age, format_record, format_table, one_line, whole_ms

PATH = "/v2/tasks"
TASK_IDS = ListedValues("tasks")
HEADER = ("TASK", "STATE", "AGE", "QUEUED", "FIRST", "TOKENS", "POOL", "ERROR")


async def tasks(options: argparse.Namespace, queen: QueenClient) -> None:
    """List tasks, or show one. Raises CommandError."""
    if options.id:
        body = await queen.get(build_path(PATH, options.id))
        print_one(options, body, TaskView, format_record, lambda one: [str(one.task_id)])
        return
    await print_pages(queen, PATH, options, TaskList, format_tasks, task_ids, state=options.state)


def task_ids(page: TaskList) -> Iterator[str]:
    return (str(task.task_id) for task in page.tasks)


def format_tasks(pages: Sequence[TaskList]) -> str:
    """Format a row for each task; QUEUED and FIRST are milliseconds since its admission."""
    rows = [_row(task) for page in pages for task in page.tasks]
    return format_table([HEADER, *rows]) if rows else "there are no matching tasks"


def _row(task: TaskView) -> tuple[str, ...]:
    timings, error = task.timings, task.error
    return (
        str(task.task_id),
        task.state,
        age(timings.submitted_at),
        whole_ms(timings.queued_ms),
        whole_ms(timings.first_token_ms),
        str(task.usage.tokens_out),
        one_line(task.pool_id),
        one_line(f"{error.code}: {error.message}" if error else None),
    )


TASKS = CliCommand(
    "tasks",
    "show the tasks, newest first, or one task",
    tasks,
    [
        argument("id", nargs="?", type=identifier, help="show all fields of this task", completion=TASK_IDS),
        argument("--state", choices=[*map(str, TaskState)], help="show only tasks in this state"),
        *PAGE_ARGUMENTS,
        *LIST_ARGUMENTS,
    ],
)
