"""The index of orchctl's commands, from which it prints its help and imports only the command that is used."""

import json
import sys
from collections.abc import Sequence

from orchctl.command import CliCommand

HEAD = '''"""The commands in the order of the help, and where each is declared. Generated."""

from orchctl.command_line import CommandEntry

INDEX = (
'''


def command_index(commands: Sequence[CliCommand]) -> str:
    """Return the module."""
    return HEAD + "".join(_entry(command) for command in commands) + ")\n"


def _entry(command: CliCommand) -> str:
    fields = [json.dumps(text, ensure_ascii=False) for text in (command.name, command.help, declaration(command))]
    line = f"    CommandEntry({', '.join(fields)}),\n"
    return (
        line
        if len(line) <= 121
        else "    CommandEntry(\n" + "".join(f"        {each},\n" for each in fields) + "    ),\n"
    )


def declaration(command: CliCommand) -> str:
    """Return `module:NAME` of a command. Raises LookupError if it is not a global of the module of its coroutine."""
    module = sys.modules[command.run.__module__]
    for name, value in vars(module).items():
        if value is command:
            return f"{module.__name__}:{name}"
    raise LookupError(f"{command.name}: no global of {module.__name__}, which has its coroutine function")
