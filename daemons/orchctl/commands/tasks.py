"""orchctl tasks: list tasks, or show one."""

import argparse
from collections.abc import Sequence

from llama_orch.contracts.tasks import TaskList, TaskState, TaskView
from orchctl.client import QueenClient, build_path
from orchctl.command import PAGE_ARGUMENTS, CliCommand, ListedValues, argument, identifier
from orchctl.output import print_response
from orchctl.paging import print_pages
from orchctl.tables import age, format_record, format_table, one_line, whole_ms

PATH = "/v2/tasks"
TASK_IDS = ListedValues("task_id", "tasks")
HEADER = ("TASK", "STATE", "AGE", "QUEUED", "FIRST", "TOKENS", "POOL", "ERROR")


async def tasks(options: argparse.Namespace, queen: QueenClient) -> None:
    """List tasks, or show one. Raises CommandError."""
    if options.id:
        print_response(options.json, await queen.get(build_path(PATH, options.id)), TaskView, format_record)
        return
    await print_pages(queen, PATH, options, TaskList, format_tasks, state=options.state)


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
    ],
)
