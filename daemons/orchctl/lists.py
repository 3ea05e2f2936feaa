"""What all commands that list things have in common: their options, and the formats of their output."""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pydantic import BaseModel

from orchctl.client import parse_response
from orchctl.command import argument
from orchctl.output import write
from orchctl.yaml_text import yaml_text

DEFAULT_INTERVAL_S = 2.0
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 0.1, 86400.0

M = TypeVar("M", bound=BaseModel)


def interval(text: str) -> float:
    """A number of seconds between two views."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not SHORTEST_INTERVAL_S <= seconds <= LONGEST_INTERVAL_S:
        limits = f"{SHORTEST_INTERVAL_S:g} to {LONGEST_INTERVAL_S:g} seconds"
        raise argparse.ArgumentTypeError(f"invalid interval: {text!r} (allowed: {limits})")
    return seconds


LIST_ARGUMENTS = (
    argument(
        "-o",
        "--output",
        choices=["json", "yaml", "name"],
        help="json or yaml: print all fields, for scripts; name: print one id on each line, for xargs",
    ),
    argument(
        "--watch",
        type=interval,
        metavar="[=SECONDS]",
        value_if_bare=f"{DEFAULT_INTERVAL_S:g}",
        help=f"show it again every SECONDS (default: {DEFAULT_INTERVAL_S:g}), until Ctrl-C",
    ),
)
"""Arguments of every command that lists things."""


def print_list(
    options: argparse.Namespace,
    bodies: Sequence[bytes],
    model: type[M],
    text: Callable[[Sequence[M]], str],
    names: Callable[[M], Iterable[str]],
) -> None:
    """Print responses that belong together, such as pages, in the format of the options.

    JSON is that of the queen, one line for each response; YAML has a document for each; by `name`, each of the `names`
    is printed once. Raises CommandError if a response is invalid.
    """
    parsed = [parse_response(model, body) for body in bodies]
    match options.output or ("json" if options.json else None):
        case "json":
            write("".join(f"{body.decode()}\n" for body in bodies))
        case "yaml":
            write("---\n".join(yaml_text(json.loads(body)) for body in bodies))
        case "name":
            write("".join(f"{name}\n" for name in dict.fromkeys(name for each in parsed for name in names(each))))
        case _:
            write(f"{text(parsed)}\n")


def print_one(
    options: argparse.Namespace,
    body: bytes,
    model: type[M],
    text: Callable[[M], str],
    names: Callable[[M], Iterable[str]],
) -> None:
    """Print one response, a list or one of its elements, likewise."""
    print_list(options, [body], model, lambda parsed: text(parsed[0]), names)
