"""How a command is added to the command line: its options, the ones all commands have, and what runs it."""

import argparse
import math
import re
from collections.abc import Awaitable, Callable

from llama_orch.service.command_line import Parser
from orchctl.client import URL_VARIABLE, QueenClient
from orchctl.destination import DEFAULT_URL, SOCKET
from orchctl.encoding import is_text

Run = Callable[[argparse.Namespace, QueenClient], Awaitable[None]]
UNSET = argparse.SUPPRESS
"""The default of an option that a command and the commands below it have: the one given last counts."""
UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


class Commands:
    """The commands of a parser; `required` is whether there must be one."""

    def __init__(self, parser: Parser, *, required: bool = False) -> None:
        # pinned so that the usage line of a command below another does not repeat that one's options
        self._parsers = parser.add_subparsers(
            required=required, metavar="COMMAND" if required else "[COMMAND]", parser_class=Parser, prog=parser.prog
        )

    def add(self, name: str, run: Run, words: str) -> Parser:
        """A command that `run` runs, with `--url` and `--json`; its further options are for the caller to add."""
        command = self._parsers.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        common(command, UNSET)
        command.set_defaults(run=run)
        return command


def common(command: Parser, default: str | None = None) -> None:
    """The options that every command has, and that may stand before it as well."""
    default_words = f"${URL_VARIABLE}, or {SOCKET} where that may be used, or {DEFAULT_URL}"
    url = f"queen-rbee's URL, or unix:PATH (default: {default_words})"
    command.add_argument("--url", default=default, help=url)
    command.add_argument("--json", action="store_true", default=default or False, help="print JSON, for scripts")


def paged(command: Parser, default: str | None = None) -> None:
    """The options of a command that lists what the queen gives page by page."""
    command.add_argument("--limit", type=int, default=default, metavar="N", help="how many to show (default: 50)")
    command.add_argument("--before", type=identifier, default=default, metavar="ID", help="those older than ID")
    command.add_argument("--all", action="store_true", default=default or False, help="all of them")


def identifier(text: str) -> str:
    """A name or an id; what else it must be, the queen knows."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty text is no id")
    if not is_text(text):
        raise argparse.ArgumentTypeError("what is no text (UTF-8) is no id")
    return text


def milliseconds(text: str) -> int:
    """A length of time such as 90s, 5m or 1h, in milliseconds."""
    found = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is no length of time such as 90s, 5m or 1h")
    return int(found[1]) * UNITS_MS[found[2]]


def number(text: str) -> float:
    """A number that JSON can say."""
    found = float(text)
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text} is no finite number")
    return found
