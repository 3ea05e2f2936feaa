"""Declaration of a command, from which parser, help and shell completion derive, and the types of its arguments."""

import argparse
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchctl.locations import DEFAULT_URL, QUEEN_SOCKET, URL_VARIABLE

if TYPE_CHECKING:
    from orchctl.client import QueenClient

Run = Callable[[argparse.Namespace, "QueenClient"], Awaitable[None]]
UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


@dataclass(frozen=True)
class ListedValues:
    """Completes an argument with the output of `orchctl COMMAND -o name`, and with `words`."""

    command: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Argument:
    """An option or a positional argument.

    `settings` are the keyword arguments of argparse's add_argument(). `completion` is how the shell completes its value
    if it has no choices. Options of the same `exclusive` group cannot be combined. An option with `value_if_bare` may
    be given without a value, which then is this one; another value follows after `=`.
    """

    names: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    value_if_bare: str | None = None
    completion: ListedValues | Literal["files"] | None = None
    exclusive: str | None = None

    @property
    def is_option(self) -> bool:
        return self.names[0].startswith("-")

    @property
    def takes_value(self) -> bool:
        """Whether the next word on the command line is its value."""
        return self.value_if_bare is None and not str(self.settings.get("action", "")).startswith("store_")


def argument(
    *names: str,
    value_if_bare: str | None = None,
    completion: ListedValues | Literal["files"] | None = None,
    exclusive: str | None = None,
    **settings: Any,
) -> Argument:
    return Argument(names, settings, value_if_bare, completion, exclusive)


@dataclass(frozen=True)
class CliCommand:
    """A command: `help` is its line in the help of orchctl, `run` the coroutine function that executes it.

    A command with `subcommands` runs itself if none is given. Its arguments may also be given before the subcommand; a
    subcommand's argument of the same destination overrides them.
    """

    name: str
    help: str
    run: Run
    arguments: Sequence[Argument] = ()
    subcommands: Sequence["CliCommand"] = ()


COMMON_ARGUMENTS = (
    argument(
        "--url",
        help=f"URL of queen-rbee, or unix:PATH (default: ${URL_VARIABLE}, or {QUEEN_SOCKET} if this user may connect, "
        f"or {DEFAULT_URL})",
    ),
    argument("--json", action="store_true", help="print JSON, for scripts"),
)
"""Arguments of every command; they may also be given before it."""


def identifier(text: str) -> str:
    """A name or id. The queen checks its form; a request cannot carry an empty one or invalid UTF-8."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an id cannot be empty")
    if any("\ud800" <= char <= "\udfff" for char in text):  # bytes that Python could not decode
        raise argparse.ArgumentTypeError("an id must be valid UTF-8")
    return text


def milliseconds(text: str) -> int:
    """A duration such as 90s, 5m or 1h, in milliseconds."""
    match = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"invalid duration: {text!r} (examples: 90s, 5m or 1h)")
    return int(match[1]) * UNITS_MS[match[2]]


def finite_number(text: str) -> float:
    """A number that JSON can represent."""
    with suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise argparse.ArgumentTypeError(f"{text} is not a finite number")


PAGE_ARGUMENTS = (
    argument("--limit", type=int, metavar="N", help="number of entries to show (default: 50, at most 500)"),
    argument("--before", type=identifier, metavar="ID", help="show the entries that are older than ID"),
    argument("--all", action="store_true", help="show all entries"),
)
"""Arguments of a command that lists what the queen returns in pages."""
