"""What is said to `orchctl chat`, line by line: typed at a terminal with editing, or read from a pipe or a file.

Reading blocks, and nothing else runs meanwhile: there is no thread that could be left behind, and Ctrl-C gets through.
"""

import sys
from dataclasses import dataclass
from typing import TextIO

from orchctl.texts import standard_input

PROMPT = "> "


@dataclass(frozen=True)
class Lines:
    """Lines of standard input; `typed` is whether a person types them."""

    typed: bool

    def next(self) -> str | None:
        """The next line without its end; None behind the last one. Raises Failure, and KeyboardInterrupt.

        A person who presses Ctrl-C instead of typing has said the last one.
        """
        with standard_input() as stdin:
            return _asked(stdin) if self.typed else _read(stdin)


def lines() -> Lines:
    """Whatever comes on standard input. Raises Failure where it is closed."""
    with standard_input() as stdin:
        return Lines(stdin.isatty())


def _asked(stdin: TextIO) -> str | None:
    try:
        if sys.stdout.isatty():
            return _edited()
        # the answers go elsewhere, and the prompt must not follow them
        print(PROMPT, end="", file=sys.stderr, flush=True)
        return _read(stdin)
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)  # the shell's own prompt gets a line of its own
        return None


def _edited() -> str:
    import readline  # noqa: F401  # input() edits with it, and only a terminal needs it

    return input(PROMPT)


def _read(stdin: TextIO) -> str | None:
    line = stdin.readline()
    return line.removesuffix("\n") if line else None
