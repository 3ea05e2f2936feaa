"""orchctl load and unload: put a pool's model into memory, or free the memory."""

import argparse

import trio

from llama_orch.contracts.operations import Operation
from orchctl.client import QueenClient, build_path, parse_response
from orchctl.command import CliCommand, argument, identifier
from orchctl.commands.nodes import NODE_IDS
from orchctl.commands.operations import PATH, check_outcome, format_outcome, wait_for_end
from orchctl.commands.pools import POOL_IDS
from orchctl.output import print_response

CANCEL_LIMIT_S = 5.0
FAILED = "it failed"


async def load(options: argparse.Namespace, queen: QueenClient) -> None:
    """Load the pool. Raises CommandError. Ctrl-C cancels the load."""
    await run_operation(options, queen, options.pool, "preload", wait=not options.no_wait)


async def unload(options: argparse.Namespace, queen: QueenClient) -> None:
    """Unload the pool once its tasks have ended. Raises CommandError."""
    await run_operation(options, queen, options.pool, "unload", wait=options.wait)


async def run_operation(
    options: argparse.Namespace,
    queen: QueenClient,
    pool: str,
    verb: str,
    *,
    wait: bool,
    quiet: bool = False,
    body: dict[str, object] | None = None,
) -> None:
    """Start the operation and, with `wait`, follow it to its end; Ctrl-C cancels it. Raises CommandError."""
    node = getattr(options, "node", None)
    started = await queen.call("POST", build_path("/v2/pools", pool, verb, node_id=node), body)
    operation_id = parse_response(Operation, started).operation_id
    if not wait:
        print_response(options.json, started, Operation, lambda operation: operation.operation_id)
        return
    ended = await _until_end(queen, started, operation_id)
    operation = parse_response(Operation, ended)
    if not quiet:
        print_response(options.json, ended, Operation, format_outcome)
    check_outcome(operation)


async def _until_end(queen: QueenClient, started: bytes, operation_id: str) -> bytes:
    ended = False
    try:
        body = await wait_for_end(queen, started)
        ended = True
        return body
    finally:
        if not ended:
            with trio.move_on_after(CANCEL_LIMIT_S, shield=True):
                await queen.call("DELETE", build_path(PATH, operation_id))


POOL = argument("pool", type=identifier, metavar="POOL", help="pool to act on", completion=POOL_IDS)
NODE = argument("--node", type=identifier, metavar="NODE", help="node of POOL (default: all)", completion=NODE_IDS)
NO_WAIT = argument("--no-wait", action="store_true", help="print the operation's id and do not wait for its end")
WAIT = argument("--wait", action="store_true", help="wait until the memory is free")

LOAD = CliCommand("load", "load the model of a pool, and wait until it is ready", load, [POOL, NODE, NO_WAIT])
UNLOAD = CliCommand("unload", "unload the model of a pool once its tasks have ended", unload, [POOL, NODE, WAIT])
