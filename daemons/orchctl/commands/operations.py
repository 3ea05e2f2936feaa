"""orchctl operations: long-running operations such as drains; list them, show one, or wait for its end."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

import trio

from llama_orch.contracts.operations import Operation, OperationList, OperationState
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, build_path, parse_response
from orchctl.command import CliCommand, ListedValues, argument, identifier
from orchctl.errors import CommandError
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.output import StatusLine
from orchctl.tables import age, duration, format_record, format_table, one_line

PATH = "/v2/operations"
HEADER = ("OPERATION", "KIND", "POOL", "NODE", "STATE", "LEFT", "AGE", "MESSAGE")
POLL_S = 0.5
RETRY_LIMIT_S = 30.0
"""How long to wait for a queen that is away; after a restart it is back within seconds."""
TRANSIENT = (ExitStatus.UNAVAILABLE, ExitStatus.TEMPORARY)
FAILURE_STATUS = {OperationState.FAILED: ExitStatus.SOFTWARE, OperationState.CANCELLED: ExitStatus.TEMPORARY}


async def operations(options: argparse.Namespace, queen: QueenClient) -> None:
    """List the operations, or show one. Raises CommandError."""
    if options.id:
        body = await queen.get(build_path(PATH, options.id))
        print_one(options, body, Operation, format_record, lambda one: [one.operation_id])
        return
    body = await queen.get(PATH)
    print_one(
        options,
        body,
        OperationList,
        lambda listed: format_operations(listed.operations),
        lambda listed: (each.operation_id for each in listed.operations),
    )


def format_operations(operations: Sequence[Operation]) -> str:
    return format_table([HEADER, *map(_row, operations)]) if operations else "there are no operations"


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


async def wait_for_end(queen: QueenClient, body: bytes) -> bytes:
    """Poll the operation in `body`, show its progress, and return its final state. Raises CommandError."""
    line = StatusLine()
    try:
        while (operation := parse_response(Operation, body)).state is OperationState.RUNNING:
            line.show(format_progress(operation))
            await trio.sleep(POLL_S)
            body = await get_with_retries(queen, build_path(PATH, operation.operation_id))
        return body
    finally:
        line.clear()


async def get_with_retries(queen: QueenClient, path: str) -> bytes:
    """Retry transient errors for RETRY_LIMIT_S seconds. Raises CommandError."""
    give_up_at = trio.current_time() + RETRY_LIMIT_S
    while True:
        try:
            return await queen.get(path)
        except CommandError as error:
            if error.status not in TRANSIENT or trio.current_time() >= give_up_at:
                raise
        await trio.sleep(POLL_S)


def format_progress(operation: Operation, now: datetime | None = None) -> str:
    """Format what a load waits for; of others the number of tasks left, and the time until a deadline cancels them."""
    if operation.message:
        return f"{describe(operation)}: {operation.message}"
    left = f"{operation.leases_left} of {operation.leases_total} tasks left"
    if operation.deadline_at is None:
        return f"{describe(operation)}: {left}"
    remaining = (operation.deadline_at - (now or datetime.now(UTC))).total_seconds()
    return f"{describe(operation)}: {left}, deadline in {duration(remaining)}"


def describe(operation: Operation) -> str:
    """Format kind and target, as in `drain default on gpu-1`."""
    pool = f" {operation.pool_id}" if operation.pool_id else ""
    node = f" {'on' if pool else 'node'} {operation.node_id}" if operation.node_id else ""
    return f"{operation.kind}{pool}{node}"


def format_outcome(operation: Operation) -> str:
    return ": ".join(filter(None, (describe(operation), operation.state, operation.message)))


def check_outcome(operation: Operation) -> None:
    """Raises CommandError if the operation failed or was cancelled."""
    if operation.state in FAILURE_STATUS:
        raise CommandError(f"the {operation.kind} did not complete", "", FAILURE_STATUS[operation.state])


OPERATIONS = CliCommand(
    "operations",
    "show long-running operations: drains, loads, unloads, reloads and purges",
    operations,
    [
        argument(
            "id",
            nargs="?",
            type=identifier,
            metavar="ID",
            help="show all fields of this operation",
            completion=ListedValues("operations"),
        ),
        *LIST_ARGUMENTS,
    ],
)
