"""orchctl submit: submit a task, print its output as it arrives, and cancel it when interrupted."""

import argparse
from contextlib import suppress
from dataclasses import replace

import trio

from llama_orch.contracts.tasks import TaskAccepted
from llama_orch.http.client.idle_connections import IdleConnections
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, parse_response
from orchctl.command import CliCommand, argument
from orchctl.commands.cancel import cancel_task
from orchctl.error_responses import V2Error
from orchctl.errors import CommandError, retry_hint
from orchctl.nurseries import cancel_on_termination
from orchctl.output import StatusLine, print_response
from orchctl.submit.display import TaskDisplay
from orchctl.submit.event_stream import read_to_end
from orchctl.submit.request import GENERATION_ARGUMENTS, PLACEMENT_ARGUMENTS, TASK_ARGUMENTS, task_input, task_request

CANCEL_LIMIT_S = 5.0


async def submit(options: argparse.Namespace, queen: QueenClient) -> None:
    """Submit a task and, without --detach, print its output to the end. Raises CommandError."""
    texts = task_input(options.workload, options.text)
    async with IdleConnections() as connections:
        persistent = replace(queen, connections=connections)
        body = await persistent.call("POST", "/v2/tasks", task_request(options, texts))
        accepted = parse_response(TaskAccepted, body)
        if options.detach:
            print_response(options.json, body, TaskAccepted, lambda task: str(task.task_id))
            return
        display = TaskDisplay(options.json, texts.inputs or (), StatusLine(options.quiet))
        await follow(queen, persistent, accepted, display)


async def follow(queen: QueenClient, persistent: QueenClient, accepted: TaskAccepted, display: TaskDisplay) -> None:
    """Display the task's events to the end, and resume after a lost connection. Raises CommandError if the task fails.

    If this is left before the task ends (Ctrl-C, SIGTERM, closed pipe), the task is cancelled, since its output would
    be lost. The cancel goes through `persistent`, the connection on which the task was submitted: name resolution,
    connecting and a TLS handshake would take most of the time until the engine's slot is free.
    """
    async with cancel_on_termination():
        try:
            last = await read_to_end(queen, accepted, display)
        except BaseException:
            # if the queen does not answer, the task has gone with it
            with trio.CancelScope(shield=True), trio.move_on_after(CANCEL_LIMIT_S), suppress(CommandError):
                await cancel_task(persistent, str(accepted.task_id))
            raise
        finally:
            display.end()
        if last.name == "error":
            raise _task_error(parse_response(V2Error, last.data.encode()))


def _task_error(error: V2Error) -> CommandError:
    status = ExitStatus.TEMPORARY if error.retriable else ExitStatus.SOFTWARE
    hint = "The task can be submitted again." if error.retriable else ""
    hint = f"{hint} {retry_hint(error.retry_after_ms)}".strip()
    return CommandError(f"the task failed: {error.code}: {error.message}", hint, status)


SUBMIT = CliCommand(
    "submit",
    "run a task and print its output as it arrives",
    submit,
    [
        *TASK_ARGUMENTS,
        *PLACEMENT_ARGUMENTS,
        *GENERATION_ARGUMENTS,
        argument("--detach", action="store_true", help="print the task's id and do not wait for its output"),
        argument("--quiet", action="store_true", help="do not show the queue position"),
    ],
)
