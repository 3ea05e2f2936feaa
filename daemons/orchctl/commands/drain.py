"""orchctl drain and resume: no new tasks for a pool or a whole node, and new ones again."""

import argparse

from llama_orch.contracts.operations import Operation
from llama_orch.service.command_line import Parser
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, below, understood
from orchctl.command import Commands, identifier, milliseconds
from orchctl.commands.operations import check_outcome, followed, outcome
from orchctl.errors import CommandError
from orchctl.output import note, show


def add(commands: Commands) -> None:
    """Add the commands `drain` and `resume`."""
    command = commands.add("drain", drain, "give a pool or a node no new tasks, and wait until it has none")
    _add_target(command)
    deadline = "end what still runs after so long, as in 90s, 5m or 1h (default: never)"
    command.add_argument("--deadline", type=milliseconds, metavar="TIME", help=deadline)
    _add_target(commands.add("resume", resume, "undo a drain: the pool or the node gets tasks again"))


def _add_target(command: Parser) -> None:
    command.add_argument("pool", nargs="?", type=identifier, metavar="POOL", help="the pool; without one, all of NODE")
    command.add_argument("--node", type=identifier, metavar="NODE", help="the node, or the node of the pool")
    no_wait = "print the operation's id and do not wait for its end"
    command.add_argument("--no-wait", action="store_true", help=no_wait)


async def drain(options: argparse.Namespace, queen: QueenClient) -> None:
    """Drain, and wait until nothing runs there any more. Raises CommandError; Ctrl-C ends the waiting only."""
    body = {} if options.deadline is None else {"deadline_ms": options.deadline}
    begun = await queen.call("POST", path_of(options, "drain"), body)
    try:
        await _show(options, queen, begun)
    except KeyboardInterrupt:
        note(f"the drain stays in force ({understood(Operation, begun).operation_id}); orchctl {_undo(options)}")
        raise


async def resume(options: argparse.Namespace, queen: QueenClient) -> None:
    """Undo a drain. Raises CommandError."""
    await _show(options, queen, await queen.call("POST", path_of(options, "resume")))


async def _show(options: argparse.Namespace, queen: QueenClient, begun: bytes) -> None:
    if options.no_wait:
        show(options.json, begun, Operation, lambda operation: operation.operation_id)
        return
    ended = await followed(queen, begun)
    show(options.json, ended, Operation, outcome)
    check_outcome(understood(Operation, ended))


def path_of(options: argparse.Namespace, verb: str) -> str:
    """Where `verb` is asked for. Raises CommandError where neither pool nor node is named."""
    if options.pool:
        return below("/v2/pools", options.pool, verb, node_id=options.node)
    if options.node:
        return below("/v2/nodes", options.node, verb)
    hint = f"As in: orchctl {verb} POOL, or orchctl {verb} --node NODE"
    raise CommandError("which pool or node is meant?", hint, ExitStatus.USAGE)


def _undo(options: argparse.Namespace) -> str:
    node = f"--node {options.node}" if options.node else ""
    return " ".join(filter(None, ("resume", options.pool, node, "undoes it")))
