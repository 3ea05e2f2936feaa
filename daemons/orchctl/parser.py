"""The list of all commands, and the command line parser built from it."""

from argparse import SUPPRESS
from collections.abc import Sequence
from typing import Any

from llama_orch import VERSION
from llama_orch.service.command_line import Parser
from orchctl.bench.bench import BENCH
from orchctl.bundle.support_bundle import SUPPORT_BUNDLE
from orchctl.chat.chat import CHAT
from orchctl.check.check import CHECK
from orchctl.command import COMMON_ARGUMENTS, Argument, CliCommand
from orchctl.commands.artifacts import ARTIFACTS
from orchctl.commands.cancel import CANCEL
from orchctl.commands.capabilities import CAPABILITIES
from orchctl.commands.catalog import CATALOG
from orchctl.commands.disk_models import PIN, RM, UNPIN
from orchctl.commands.drain import DRAIN, RESUME
from orchctl.commands.gpus import GPUS
from orchctl.commands.loading import LOAD, UNLOAD
from orchctl.commands.models import MODELS
from orchctl.commands.nodes import NODES
from orchctl.commands.operations import OPERATIONS
from orchctl.commands.pools import POOLS
from orchctl.commands.ps import PS
from orchctl.commands.pull import PULL
from orchctl.commands.sessions import SESSIONS
from orchctl.commands.status import STATUS
from orchctl.commands.tasks import TASKS
from orchctl.config.config import CONFIG
from orchctl.doctor.doctor import DOCTOR
from orchctl.events.events import EVENTS
from orchctl.journal.logs import LOGS
from orchctl.machine.pool import POOL
from orchctl.machine.reloading import PURGE, RELOAD
from orchctl.machine.run import RUN, SERVE
from orchctl.submit.submit import SUBMIT

COMMANDS = (
    RUN,
    SERVE,
    CHECK,
    DOCTOR,
    LOGS,
    EVENTS,
    CONFIG,
    SUPPORT_BUNDLE,
    STATUS,
    PS,
    POOLS,
    POOL,
    LOAD,
    UNLOAD,
    RELOAD,
    PURGE,
    NODES,
    GPUS,
    DRAIN,
    RESUME,
    OPERATIONS,
    CAPABILITIES,
    SUBMIT,
    CHAT,
    BENCH,
    TASKS,
    CANCEL,
    SESSIONS,
    MODELS,
    PULL,
    RM,
    PIN,
    UNPIN,
    CATALOG,
    ARTIFACTS,
)
"""In the order of help, completion and orchctl(1)."""


class CommandParser(Parser):
    """Parses the arguments of a command; options may be between its positional ones, as in `run M --ctx 9 PROMPT`.

    argparse alone takes an optional positional argument for absent if an option precedes it, but it supports this only
    without subcommands (`intermixed`).
    """

    intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as the base class does."""
        if not self.intermixed:
            return super().parse_known_args(args, namespace)
        self.intermixed = False  # the next line calls this method
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixed = True


def build_parser(commands: Sequence[CliCommand] = COMMANDS) -> Parser:
    """Return the parser of the whole command line; it sets `run` to the command's coroutine function."""
    parser = Parser("orchctl", description="Command line client of llama-orch, see orchctl(1).")
    parser.add_argument("--version", action="version", version=f"orchctl (llama-orch) {VERSION}")
    destinations = _add_arguments(parser, COMMON_ARGUMENTS)
    _add_commands(parser, commands, destinations, required=True)
    return parser


def _add_commands(
    parser: Parser, commands: Sequence[CliCommand], destinations: frozenset[str], *, required: bool = False
) -> None:
    metavar = "COMMAND" if required else "[COMMAND]"
    # prog is set so that the usage line of a subcommand does not repeat the options of its parent
    subparsers = parser.add_subparsers(required=required, metavar=metavar, parser_class=CommandParser, prog=parser.prog)
    for command in commands:
        description = f"{command.help[0].upper()}{command.help[1:]}."
        subparser = subparsers.add_parser(command.name, help=command.help, description=description)
        subparser.set_defaults(run=command.run)
        subparser.intermixed = not command.subcommands
        own = _add_arguments(subparser, (*COMMON_ARGUMENTS, *command.arguments), inherited=destinations)
        if command.subcommands:
            _add_commands(subparser, command.subcommands, own)


def _add_arguments(
    parser: Parser, arguments: Sequence[Argument], inherited: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Add `arguments` and return their destinations. The default of an `inherited` one is its value so far."""
    groups = {name: parser.add_mutually_exclusive_group() for name in {each.exclusive for each in arguments} if name}
    destinations = set()
    for each in arguments:
        action = (groups[each.exclusive] if each.exclusive else parser).add_argument(*each.names, **each.settings)
        destinations.add(action.dest)
        if action.dest in inherited:
            action.default = SUPPRESS
    return frozenset(destinations)
