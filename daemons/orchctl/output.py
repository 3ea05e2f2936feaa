"""What orchctl prints, one way for each: results on standard output, words for a person on standard error.

Words and the line that is kept up to date are for somebody at a terminal; into a pipe or a file they never go.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO, TypeVar

from pydantic import BaseModel

from llama_orch.service.output import discard
from orchctl.failure import Failure
from orchctl.queen import understood

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CONTROLS: dict[int, str | None] = {
    **{code: REPLACEMENT for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"},
    ord("\r"): None,
}
"""What a terminal would obey is not passed on to it: models and error messages are not to be trusted that far."""

M = TypeVar("M", bound=BaseModel)


def show(as_json: bool, body: bytes, model: type[M], text: Callable[[M], str]) -> None:
    """The queen's answer: her own JSON, or `text` made of it. Raises Failure where it is no `model`."""
    show_all(as_json, [body], model, lambda found: text(found[0]))


def show_all(as_json: bool, bodies: Sequence[bytes], model: type[M], text: Callable[[Sequence[M]], str]) -> None:
    """Answers that belong together, such as pages: a line of JSON each, or one `text`. Raises Failure as `show`."""
    found = [understood(model, body) for body in bodies]
    emit("\n".join(body.decode() for body in bodies) if as_json else text(found))
    emit("\n")


def emit(text: str) -> None:
    """Text on standard output, at once."""
    print(text.translate(CONTROLS) if sys.stdout.isatty() else text, end="", flush=True)


def emit_json(document: object) -> None:
    """A line of JSON on standard output, at once."""
    emit(json.dumps(document, ensure_ascii=False) + "\n")


def explain(failure: Failure) -> None:
    """What went wrong and how to mend it, wherever standard error goes; it is no failure that nobody reads that."""
    if sys.stderr is None:  # print() would take standard output then
        return
    try:
        _tell(f"{failure.message}\n{failure.hint}")
    except OSError:
        discard(sys.stderr)


def note(text: str) -> None:
    """Words to the person at the terminal."""
    if _watched():
        _tell(text)


def _tell(text: str) -> None:
    lines = "".join(f"orchctl: {line}\n" for line in text.splitlines() if line)
    print(lines.translate(CONTROLS) if sys.stderr.isatty() else lines, end="", file=sys.stderr, flush=True)


def _watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


class Line:
    """A line on the terminal's standard error, where each text takes the place of the one before.

    `watched` is whether there is such a terminal, and somebody who wants to be told.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._shown = ""
        self.watched = _watched() and not quiet

    def show(self, text: str) -> None:
        """`text` in the place of what the line said; cut where it would wrap, for then it could not be taken back."""
        if self.watched:
            text = f"orchctl: {text}".translate(CONTROLS)[: _columns(sys.stderr) - 1]
            covered, self._shown = len(self._shown), text  # before a Ctrl-C can come between
            print("\r" + text.ljust(covered), end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave no trace of it."""
        if self._shown:
            print("\r" + " " * len(self._shown) + "\r", end="", file=sys.stderr, flush=True)
            self._shown = ""


def terminal_columns() -> int | None:
    """How wide the terminal is that standard output goes to; None where it goes elsewhere."""
    return _columns(sys.stdout) if sys.stdout.isatty() else None


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
