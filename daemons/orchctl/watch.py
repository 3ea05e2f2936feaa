"""--watch: a command repeated until Ctrl-C, in place on a terminal, otherwise one output after the other."""

import argparse
import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import trio

from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient
from orchctl.command import Run
from orchctl.errors import CommandError
from orchctl.output import CONTROL_CHARACTERS, print_error, terminal_size, write
from orchctl.widths import truncate

SEPARATOR = "---\n"
"""Between two outputs. It also separates YAML documents."""
TRANSIENT = (ExitStatus.UNAVAILABLE, ExitStatus.TEMPORARY)
NO_CHANGES = "with --watch a command is repeated, so it may only look"


async def watch(command: Run, options: argparse.Namespace, queen: QueenClient) -> None:
    """Run `command` every `options.watch` seconds. It never returns.

    Raises CommandError if the first run fails, or a later one for a reason that does not pass; and if the command would
    change something.
    """
    in_place = terminal_size() is not None and os.environ.get("TERM") != "dumb"
    view: _InPlace | _Sequence = _InPlace() if in_place else _Sequence(as_lines=_is_json(options))
    queen, shown = replace(queen, read_only=NO_CHANGES), False
    while True:
        page = _Page()
        try:
            with redirect_stdout(page), redirect_stderr(page):
                await command(options, queen)
        except CommandError as error:
            if not shown or error.status not in TRANSIENT:
                raise
            view.failed(error)
        else:
            shown = True
            view.show(page.getvalue())
        await trio.sleep(options.watch)


def _is_json(options: argparse.Namespace) -> bool:
    return bool((options.output or ("json" if options.json else None)) == "json")


class _Page(io.StringIO):
    """Collects what the command prints. Tables have the width of the real standard output, if it is a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._real = sys.stdout

    def isatty(self) -> bool:
        return self._real.isatty()

    def fileno(self) -> int:
        return self._real.fileno()


class _Sequence:
    """Prints outputs below each other. Those `as_lines` of JSON need no separator."""

    def __init__(self, *, as_lines: bool) -> None:
        self._separator = "" if as_lines else SEPARATOR
        self._begun = False

    def show(self, text: str) -> None:
        write((self._separator if self._begun else "") + text)
        self._begun = True

    def failed(self, error: CommandError) -> None:
        print_error(error)


class _InPlace:
    """Replaces the previous output on the terminal by the next, cut to the size of the terminal."""

    def __init__(self) -> None:
        self._text = ""
        self._lines = 0
        self._columns = 0

    def show(self, text: str) -> None:
        self._text = text
        self._draw(text)

    def failed(self, error: CommandError) -> None:
        self._draw(f"{self._text}orchctl: {error.message}; trying again\n")

    def _draw(self, text: str) -> None:
        columns, rows = terminal_size() or (80, 24)
        lines = text.translate(CONTROL_CHARACTERS).expandtabs().splitlines()
        if len(lines) >= rows:
            hidden = len(lines) - max(1, rows - 2)
            lines = [*lines[: max(1, rows - 2)], f"and {hidden} more lines"]
        # lines wrap anew when the width changes, so nobody knows where the previous output began
        begin = f"\x1b[{self._lines}F" if self._lines and columns == self._columns else "\x1b[H\x1b[2J"
        begin = begin if self._columns else ""
        body = "".join(f"{truncate(line, columns - 1)}\x1b[K\n" for line in lines)
        sys.stdout.write(f"{begin}{body}\x1b[J")
        sys.stdout.flush()
        self._lines, self._columns = len(lines), columns
