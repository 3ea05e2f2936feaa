"""The command line parser, built from the declarations of commands; those of a command only when it is used."""

import argparse
from argparse import SUPPRESS
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from llama_orch.service.command_line import Parser
from orchctl.command import COMMON_ARGUMENTS, Argument, CliCommand


@dataclass(frozen=True)
class CommandEntry:
    """A command in the index: its line in the help, and `module:NAME` of its declaration, imported when it is used."""

    name: str
    help: str
    declaration: str

    def load(self) -> CliCommand:
        module, _, name = self.declaration.partition(":")
        command: CliCommand = getattr(import_module(module), name)
        return command


class Version(argparse.Action):
    """Prints the version, which takes a while to find out, only if it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_given: object) -> None:
        from llama_orch import VERSION

        print(f"orchctl (llama-orch) {VERSION}")
        parser.exit()


class CommandParser(Parser):
    """Parses the arguments of a command; options may be between its positional ones, as in `run M --ctx 9 PROMPT`.

    argparse alone takes an optional positional argument for absent if an option precedes it, but it supports this only
    without subcommands (`intermixed`). `declare`, if set, adds the arguments before the first use. `bare` has the
    options that may be given without a value, with that value.
    """

    intermixed = False
    bare: Mapping[str, str] = {}
    declare: Callable[[], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as the base class does."""
        declare, self.declare = self.declare, None
        if declare:
            declare()
        args = [*_with_values(args, self.bare)]
        if not self.intermixed:
            return super().parse_known_args(args, namespace)
        self.intermixed = False  # the next line calls this method
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixed = True


def _with_values(words: Iterable[str], bare: Mapping[str, str]) -> Iterator[str]:
    """Yield `words` with the values of options that have none. argparse would take the next word for the value."""
    options = True
    for word in words:
        options = options and word != "--"
        yield f"{word}={bare[word]}" if options and word in bare else word


def command_line(commands: Sequence[CliCommand | CommandEntry]) -> Parser:
    """Return the parser of the whole command line; it sets `run` to the command's coroutine function."""
    parser = Parser("orchctl", description="Command line client of llama-orch, see orchctl(1).")
    parser.add_argument("--version", action=Version, nargs=0, help="show program's version number and exit")
    destinations = _add_arguments(parser, COMMON_ARGUMENTS)
    _add_commands(parser, commands, destinations, required=True)
    return parser


def _add_commands(
    parser: Parser,
    commands: Sequence[CliCommand | CommandEntry],
    destinations: frozenset[str],
    *,
    required: bool = False,
) -> None:
    metavar = "COMMAND" if required else "[COMMAND]"
    # prog is set so that the usage line of a subcommand does not repeat the options of its parent
    subparsers = parser.add_subparsers(required=required, metavar=metavar, parser_class=CommandParser, prog=parser.prog)
    for command in commands:
        description = f"{command.help[0].upper()}{command.help[1:]}."
        subparser = subparsers.add_parser(command.name, help=command.help, description=description)
        if isinstance(command, CommandEntry):
            subparser.declare = partial(_declare_loaded, subparser, command, destinations)
        else:
            _declare(subparser, command, destinations)


def _declare_loaded(subparser: CommandParser, entry: CommandEntry, destinations: frozenset[str]) -> None:
    _declare(subparser, entry.load(), destinations)


def _declare(subparser: CommandParser, command: CliCommand, destinations: frozenset[str]) -> None:
    subparser.set_defaults(run=command.run)
    subparser.intermixed = not command.subcommands
    subparser.bare = {
        name: each.value_if_bare for each in command.arguments if each.value_if_bare for name in each.names
    }
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
