"""orchctl drain and resume: stop placing tasks on a pool or node, and start again."""

import argparse

from llama_orch.contracts.operations import Operation
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, build_path, parse_response
from orchctl.command import CliCommand, argument, identifier, milliseconds
from orchctl.commands.nodes import NODE_IDS
from orchctl.commands.operations import check_outcome, format_outcome, wait_for_end
from orchctl.commands.pools import POOL_IDS
from orchctl.errors import CommandError
from orchctl.output import print_note, print_response


async def drain(options: argparse.Namespace, queen: QueenClient) -> None:
    """Drain, and wait until no task is left. Raises CommandError; Ctrl-C ends only the waiting."""
    body = {} if options.deadline is None else {"deadline_ms": options.deadline}
    started = await queen.call("POST", _path(options, "drain"), body)
    try:
        await _print_operation(options, queen, started)
    except KeyboardInterrupt:
        operation_id = parse_response(Operation, started).operation_id
        print_note(f"the drain continues (operation {operation_id}); to undo it: {_resume_command(options)}")
        raise


async def resume(options: argparse.Namespace, queen: QueenClient) -> None:
    """Undo a drain. Raises CommandError."""
    await _print_operation(options, queen, await queen.call("POST", _path(options, "resume")))


async def _print_operation(options: argparse.Namespace, queen: QueenClient, started: bytes) -> None:
    if options.no_wait:
        print_response(options.json, started, Operation, lambda operation: operation.operation_id)
        return
    ended = await wait_for_end(queen, started)
    print_response(options.json, ended, Operation, format_outcome)
    check_outcome(parse_response(Operation, ended))


def _path(options: argparse.Namespace, verb: str) -> str:
    """Raises CommandError if neither a pool nor a node is given."""
    if options.pool:
        return build_path("/v2/pools", options.pool, verb, node_id=options.node)
    if options.node:
        return build_path("/v2/nodes", options.node, verb)
    hint = f"Usage: orchctl {verb} POOL, or orchctl {verb} --node NODE"
    raise CommandError("no pool or node is given", hint, ExitStatus.USAGE)


def _resume_command(options: argparse.Namespace) -> str:
    node = f"--node {options.node}" if options.node else ""
    return " ".join(filter(None, ("orchctl resume", options.pool, node)))


POOL = argument(
    "pool",
    nargs="?",
    type=identifier,
    metavar="POOL",
    help="pool to act on; without it, all pools of NODE",
    completion=POOL_IDS,
)
NODE = argument(
    "--node", type=identifier, metavar="NODE", help="node to act on, or the node of POOL", completion=NODE_IDS
)
DEADLINE = argument(
    "--deadline",
    type=milliseconds,
    metavar="TIME",
    help="cancel the tasks that still run after this time, such as 90s, 5m or 1h (default: never)",
)
NO_WAIT = argument("--no-wait", action="store_true", help="print the operation's id and do not wait for its end")

DRAIN = CliCommand(
    "drain",
    "stop placing tasks on a pool or node, and wait until those it has are done",
    drain,
    [POOL, DEADLINE, NODE, NO_WAIT],
)
RESUME = CliCommand("resume", "undo a drain: place tasks on the pool or node again", resume, [POOL, NODE, NO_WAIT])
