"""orchctl submit: hands in a task, shows what it says as it comes, and cancels it when interrupted."""

import argparse
from contextlib import suppress
from dataclasses import replace

import trio

from llama_orch.contracts.tasks import TaskAccepted
from llama_orch.http.client.client import IdleConnections
from llama_orch.service.exit import ExitStatus
from orchctl.command_line import Commands
from orchctl.failure import Failure, Said, later
from orchctl.output import Line, show
from orchctl.queen import Queen, below, understood
from orchctl.submit.display import Display
from orchctl.submit.events import read_to_end
from orchctl.submit.request import add_options, task_of
from orchctl.texts import texts_of
from orchctl.waiting import heeding

CANCEL_LIMIT_S = 5.0


def add(commands: Commands) -> None:
    """Add the command `submit`."""
    command = commands.add("submit", submit, "run a task and show its tokens as they come")
    add_options(command)
    command.add_argument("--detach", action="store_true", help="print the task's id and do not wait")
    command.add_argument("--quiet", action="store_true", help="no word about waiting")


async def submit(options: argparse.Namespace, queen: Queen) -> None:
    """Hand in a task and, unless detached, show it to its end. Raises Failure."""
    texts = texts_of(options.workload, options.text)
    async with IdleConnections() as kept:
        bidding = replace(queen, connections=kept)
        answer = await bidding.call("POST", "/v2/tasks", task_of(options, texts))
        accepted = understood(TaskAccepted, answer)
        if options.detach:
            show(options.json, answer, TaskAccepted, lambda found: str(found.task_id))
            return
        await follow(queen, bidding, accepted, Display(options.json, texts.inputs or (), Line(options.quiet)))


async def follow(queen: Queen, bidding: Queen, accepted: TaskAccepted, display: Display) -> None:
    """Show the task's events to the end, resuming where a connection breaks. Raises Failure when the task fails.

    Where this ends before the task does (Ctrl-C, SIGTERM, a closed pipe) the task is cancelled: nobody is left to read
    it. That is asked of `bidding`, the same queen over the connection by which the task was handed in: to look a name
    up, to connect and to agree on TLS anew would cost most of the time until the engine's slot is free.
    """
    async with heeding():
        try:
            last = await read_to_end(queen, accepted, display)
        except BaseException:
            with trio.CancelScope(shield=True), trio.move_on_after(CANCEL_LIMIT_S):
                await _abandon(bidding, str(accepted.task_id))
            raise
        finally:
            display.end()
        if last.name == "error":
            raise _failed(understood(Said, last.data.encode()))


async def _abandon(queen: Queen, task_id: str) -> None:
    """Cancel the task; that nobody answers is no error here: then it has gone with the queen."""
    with suppress(Failure):
        await cancel(queen, task_id)


async def cancel(queen: Queen, task_id: str) -> None:
    """Cancel a task, or nothing where it has ended. Raises Failure."""
    await queen.bid("POST", below("/v2/tasks", task_id, "cancel"))


def _failed(error: Said) -> Failure:
    status = ExitStatus.TEMPORARY if error.retriable else ExitStatus.SOFTWARE
    hint = "It may be submitted again." if error.retriable else ""
    hint = f"{hint} {later(error.retry_after_ms)}".strip()
    return Failure(f"the task failed: {error.code}: {error.message}", hint, status)
