"""orchctl cancel: cancel tasks."""

import argparse

from orchctl.client import QueenClient, build_path
from orchctl.command import CliCommand, argument, identifier
from orchctl.commands.tasks import PATH, TASK_IDS
from orchctl.errors import CommandError, combine


async def cancel_task(queen: QueenClient, task_id: str) -> None:
    """Cancel a task; a task that has ended is left as it is. Raises CommandError."""
    await queen.command("POST", build_path(PATH, task_id, "cancel"))


async def cancel(options: argparse.Namespace, queen: QueenClient) -> None:
    """Cancel every task named, even after an error. Raises CommandError for all that could not be cancelled."""
    errors = []
    for task_id in options.ids:
        try:
            await cancel_task(queen, task_id)
        except CommandError as error:
            errors.append(error)
    if errors:
        raise combine(errors)


CANCEL = CliCommand(
    "cancel",
    "cancel tasks",
    cancel,
    [argument("ids", nargs="+", type=identifier, metavar="ID", help="task to cancel", completion=TASK_IDS)],
)
