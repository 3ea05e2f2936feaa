"""Output: results on standard output, errors on standard error, notes and progress only on a terminal."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO, TypeVar

from pydantic import BaseModel

from llama_orch.service.output import discard
from orchctl.client import parse_response
from orchctl.errors import CommandError
from orchctl.widths import cut, pad, width

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CONTROL_CHARACTERS: dict[int, str | None] = {
    **{code: REPLACEMENT for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"},
    ord("\r"): None,
}
"""Translation that keeps text from models and error messages from controlling the terminal."""

M = TypeVar("M", bound=BaseModel)


def print_response(as_json: bool, body: bytes, model: type[M], text: Callable[[M], str]) -> None:
    """Print a response as the queen's JSON, or as the `text` of its `model`. Raises CommandError if it is invalid."""
    print_responses(as_json, [body], model, lambda parsed: text(parsed[0]))


def print_responses(as_json: bool, bodies: Sequence[bytes], model: type[M], text: Callable[[Sequence[M]], str]) -> None:
    """Print responses that belong together, such as pages: one line of JSON each, or one `text` for all.

    Raises CommandError if one is invalid.
    """
    parsed = [parse_response(model, body) for body in bodies]
    write("\n".join(body.decode() for body in bodies) if as_json else text(parsed))
    write("\n")


def write(text: str) -> None:
    """Write to standard output and flush."""
    print(text.translate(CONTROL_CHARACTERS) if sys.stdout.isatty() else text, end="", flush=True)


def write_json(document: object) -> None:
    """Write one line of JSON to standard output and flush."""
    write(json.dumps(document, ensure_ascii=False) + "\n")


def print_error(error: CommandError) -> None:
    """Print message and hint on standard error, if it is open."""
    if sys.stderr is None:  # print() would fall back to standard output
        return
    try:
        _write_lines(f"{error.message}\n{error.hint}")
    except OSError:
        discard(sys.stderr)


def print_progress(text: str) -> None:
    """Print a line about progress on standard error, if it is open; for scripts and logs."""
    if sys.stderr is not None:
        _write_lines(text)


def print_note(text: str) -> None:
    """Print a remark if standard error is a terminal."""
    if _stderr_is_terminal():
        _write_lines(text)


def _write_lines(text: str) -> None:
    lines = "".join(f"orchctl: {line}\n" for line in text.splitlines() if line)
    print(lines.translate(CONTROL_CHARACTERS) if sys.stderr.isatty() else lines, end="", file=sys.stderr, flush=True)


def _stderr_is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


class StatusLine:
    """A line on the terminal's standard error whose text is replaced in place.

    `enabled` is false if standard error is not a terminal, or if the user asked for quiet; then nothing is printed.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._shown = ""
        self.enabled = _stderr_is_terminal() and not quiet

    def show(self, text: str) -> None:
        """Replace the line's text. It is cut to the terminal's width: a wrapped line could not be replaced."""
        if self.enabled:
            text = f"orchctl: {text}".translate(CONTROL_CHARACTERS)
            text = cut(text, _size(sys.stderr)[0] - 1)
            covered, self._shown = width(self._shown), text  # before print(), which Ctrl-C may interrupt
            print("\r" + pad(text, covered), end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r" + " " * width(self._shown) + "\r", end="", file=sys.stderr, flush=True)
            self._shown = ""


def terminal_columns() -> int | None:
    """Return the width of the terminal on standard output; None if it is not a terminal."""
    size = terminal_size()
    return size[0] if size else None


def terminal_size() -> tuple[int, int] | None:
    """Return columns and rows of the terminal on standard output, 80 and 24 if unknown; None if it is not one."""
    return _size(sys.stdout) if sys.stdout.isatty() else None


def _size(stream: TextIO) -> tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except OSError:
        columns = rows = 0
    return columns or 80, rows or 24
