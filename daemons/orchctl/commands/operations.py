"""orchctl operations: what takes its time, such as drains; one of them, followed to its end where that is wanted."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

import trio

from llama_orch.contracts.operations import Operation, OperationList, OperationState
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, below, understood
from orchctl.command import Commands, identifier
from orchctl.errors import CommandError
from orchctl.output import StatusLine, show
from orchctl.tables import age, duration, one_line, table, whole

PATH = "/v2/operations"
HEADER = ("OPERATION", "KIND", "POOL", "NODE", "STATE", "LEFT", "AGE", "MESSAGE")
POLL_S = 0.5
PATIENCE_S = 30.0
"""How long the queen may be away while an operation is followed: one that is restarted is back within seconds."""
PASSING = (ExitStatus.UNAVAILABLE, ExitStatus.TEMPORARY)
ENDS = {OperationState.FAILED: ExitStatus.SOFTWARE, OperationState.CANCELLED: ExitStatus.TEMPORARY}
"""How following one ends that did not come to what was wanted."""


def add(commands: Commands) -> None:
    """Add the command `operations`."""
    command = commands.add("operations", operations, "what takes its time: the drains of pools and nodes")
    command.add_argument("id", nargs="?", type=identifier, metavar="ID", help="show all that is known of this one")


async def operations(options: argparse.Namespace, queen: QueenClient) -> None:
    """A table of operations, or everything about one. Raises CommandError."""
    if options.id:
        show(options.json, await queen.get(below(PATH, options.id)), Operation, whole)
        return
    show(options.json, await queen.get(PATH), OperationList, lambda found: operations_text(found.operations))


def operations_text(found: Sequence[Operation]) -> str:
    """One line an operation, with the tasks that it still waits for."""
    return table([HEADER, *map(_row, found)]) if found else "there are no operations"


def _row(operation: Operation) -> tuple[str, ...]:
    return (
        operation.operation_id,
        operation.kind,
        one_line(operation.pool_id),
        one_line(operation.node_id),
        operation.state,
        f"{operation.leases_left}/{operation.leases_total}",
        age(operation.started_at),
        one_line(operation.message),
    )


async def followed(queen: QueenClient, body: bytes) -> bytes:
    """The operation that `body` was a moment ago, when it has ended; its progress is told meanwhile. Raises CommandError."""
    line = StatusLine()
    try:
        while (now := understood(Operation, body)).state is OperationState.RUNNING:
            line.show(progress(now))
            await trio.sleep(POLL_S)
            body = await _asked(queen, below(PATH, now.operation_id))
        return body
    finally:
        line.clear()


async def _asked(queen: QueenClient, path: str) -> bytes:
    """Asked again where the queen is away, for PATIENCE_S seconds. Raises CommandError."""
    give_up_at = trio.current_time() + PATIENCE_S
    while True:
        try:
            return await queen.get(path)
        except CommandError as failure:
            if failure.status not in PASSING or trio.current_time() >= give_up_at:
                raise
        await trio.sleep(POLL_S)


def progress(operation: Operation, now: datetime | None = None) -> str:
    """How far it is: the tasks that are left, and how long they may still run."""
    left = f"{operation.leases_left} of {operation.leases_total} tasks left"
    if operation.deadline_at is None:
        return f"{what(operation)}: {left}"
    remaining = (operation.deadline_at - (now or datetime.now(UTC))).total_seconds()
    return f"{what(operation)}: {left}, ended in {duration(remaining)}"


def what(operation: Operation) -> str:
    """What is done to what, as in `drain default on gpu-1`."""
    pool = f" {operation.pool_id}" if operation.pool_id else ""
    node = f" {'on' if pool else 'node'} {operation.node_id}" if operation.node_id else ""
    return f"{operation.kind}{pool}{node}"


def outcome(operation: Operation) -> str:
    """How it has ended, or that it has not."""
    return ": ".join(filter(None, (what(operation), operation.state, operation.message)))


def check_outcome(operation: Operation) -> None:
    """Raises CommandError where it has not come to what was wanted."""
    if operation.state in ENDS:
        raise CommandError(f"the {operation.kind} did not come to its end", "", ENDS[operation.state])
