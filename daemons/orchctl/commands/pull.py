"""orchctl pull: fetch a model onto the disk of this machine, and cancel that when interrupted."""

import argparse
from contextlib import suppress

import trio

from llama_orch.contracts.node_operations import (
    NodeOperation,
    NodeOperationState,
    OperationAccepted,
    OperationProgress,
)
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, build_path, parse_response
from orchctl.command import CliCommand, argument, identifier
from orchctl.commands.disk_models import PATH
from orchctl.commands.operations import POLL_S, get_with_retries
from orchctl.errors import CommandError
from orchctl.nurseries import cancel_on_termination
from orchctl.output import StatusLine, print_note, print_progress, print_response
from orchctl.provisioner import provisioner_client, provisioner_errors
from orchctl.tables import duration, size

OPERATIONS = "/v2/operations"
CANCEL_LIMIT_S = 5.0
BAR_WIDTH = 24
LINE_EVERY_PERCENT, LINE_EVERY_S = 10, 30.0
"""How often progress is a line of its own where it cannot be replaced in place: in pipes and logs."""
CONTINUES = "What was downloaded is kept: the next pull continues from there."


async def pull(options: argparse.Namespace, queen: QueenClient) -> None:
    """Start the pull and wait for its end. Raises CommandError; Ctrl-C and signals cancel the pull."""
    with provisioner_errors():
        ended = await fetch(provisioner_client(options.url), options.ref)
        print_response(options.json, ended, NodeOperation, format_outcome)


async def fetch(provisioner: QueenClient, ref: str) -> bytes:
    """Have a model fetched and wait for it; return the ended operation. Raises CommandError.

    Ctrl-C and signals cancel the pull.
    """
    body = await provisioner.call("POST", f"{PATH}/pull", {"ref": ref})
    path = build_path(OPERATIONS, parse_response(OperationAccepted, body).operation_id)
    async with cancel_on_termination():
        try:
            ended = await _follow(provisioner, path)
        except BaseException as error:
            with trio.CancelScope(shield=True), trio.move_on_after(CANCEL_LIMIT_S), suppress(CommandError):
                await provisioner.call("DELETE", path)
            if not isinstance(error, CommandError):
                print_note(f"the pull is cancelled. {CONTINUES}")
            raise
        _check_outcome(parse_response(NodeOperation, ended))
    return ended


async def _follow(provisioner: QueenClient, path: str) -> bytes:
    """Show the progress until the operation has ended; return its final state. Raises CommandError."""
    display = PullDisplay()
    try:
        while True:
            body = await _operation(provisioner, path)
            operation = parse_response(NodeOperation, body)
            if operation.state.ended:
                return body
            display.show(operation)
            await trio.sleep(POLL_S)
    finally:
        display.end()


async def _operation(provisioner: QueenClient, path: str) -> bytes:
    """Raises CommandError, also if the daemon no longer knows the operation."""
    try:
        return await get_with_retries(provisioner, path)
    except CommandError as error:
        if error.status is not ExitStatus.NO_INPUT:
            raise
        message = "the pull has ended without a result: engine-provisioner was restarted"
        raise CommandError(message, f"Pull again. {CONTINUES}", ExitStatus.TEMPORARY) from error


class PullDisplay:
    """Shows progress: on a terminal in place, otherwise as a line now and then."""

    def __init__(self) -> None:
        self._line = StatusLine()
        self._next_percent = 0
        self._next_time = -1.0

    def show(self, operation: NodeOperation) -> None:
        """Show the state of a pull that has not ended."""
        progress, known = operation.progress, operation.progress.bytes_total
        if self._line.enabled:
            bar = format_bar(progress.bytes_done, known) + " " if known else ""
            self._line.show(bar + format_progress(operation))
            return
        percent = 100 * progress.bytes_done // known if known else 0
        now = trio.current_time()
        if now >= self._next_time or (known and percent >= self._next_percent):
            print_progress(format_progress(operation))
            self._next_time = now + LINE_EVERY_S
            self._next_percent = percent // LINE_EVERY_PERCENT * LINE_EVERY_PERCENT + LINE_EVERY_PERCENT

    def end(self) -> None:
        self._line.clear()


def format_bar(done: int, total: int) -> str:
    """Format a bar such as `[########----------------]`."""
    filled = BAR_WIDTH * min(done, total) // total
    return f"[{'#' * filled}{'-' * (BAR_WIDTH - filled)}]"


def format_progress(operation: NodeOperation) -> str:
    """Format bytes, rate and remaining time, as far as they are known."""
    progress = operation.progress
    if operation.state is NodeOperationState.QUEUED:
        return "waiting for other pulls"
    if not progress.bytes_done and not progress.bytes_total:
        return operation.detail or "started"
    return ", ".join([_amount(progress), *_speed(progress)])


def _amount(progress: OperationProgress) -> str:
    if not progress.bytes_total:
        return size(progress.bytes_done)
    percent = 100 * min(progress.bytes_done, progress.bytes_total) // progress.bytes_total
    return f"{percent} % of {size(progress.bytes_total)}"


def _speed(progress: OperationProgress) -> list[str]:
    rate = [f"{size(progress.rate_bytes_s)}/s"] if progress.rate_bytes_s else []
    return rate + ([f"{duration(progress.eta_s)} left"] if progress.eta_s is not None else [])


def format_outcome(operation: NodeOperation) -> str:
    return ": ".join(filter(None, (operation.subject, operation.detail)))


def _check_outcome(operation: NodeOperation) -> None:
    """Raises CommandError unless the pull is done."""
    if operation.state is NodeOperationState.FAILED:
        message = f"the pull failed: {operation.error or 'no reason is known'}"
        raise CommandError(message, operation.hint or "", ExitStatus.SOFTWARE)
    if operation.state is NodeOperationState.CANCELLED:
        message = "the pull was cancelled by somebody else, or engine-provisioner was stopped"
        raise CommandError(message, CONTINUES, ExitStatus.TEMPORARY)


PULL = CliCommand(
    "pull",
    "fetch a model onto the disk of this machine",
    pull,
    [argument("ref", type=identifier, metavar="REF", help="reference of the model, as in pools.toml")],
)
