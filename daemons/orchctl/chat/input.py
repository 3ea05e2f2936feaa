"""The input of orchctl chat: lines typed at a terminal with editing, or read from a pipe or file.

Reading blocks while nothing else runs, so it needs no thread, which could be left behind, and Ctrl-C takes effect.
"""

import sys
from dataclasses import dataclass
from typing import TextIO

from orchctl.stdin import decode_stdin, open_stdin

PROMPT = "> "


@dataclass
class ChatInput:
    """Lines of standard input; `interactive` if it is a terminal, `offset` is the number of bytes read so far."""

    interactive: bool
    offset: int = 0

    def next(self) -> str | None:
        """Return the next line without its end; None at the end of input. Raises CommandError and KeyboardInterrupt.

        At a terminal, Ctrl-C at the prompt counts as the end of input.
        """
        with open_stdin() as stdin:
            return self._prompt(stdin) if self.interactive else self._read(stdin)

    def _prompt(self, stdin: TextIO) -> str | None:
        try:
            if sys.stdout.isatty():
                return _edit_line()
            # standard output gets the answers only, so the prompt goes to standard error
            print(PROMPT, end="", file=sys.stderr, flush=True)
            return self._read(stdin)
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)  # start a new line for the shell's prompt
            return None

    def _read(self, stdin: TextIO) -> str | None:
        data = stdin.buffer.readline()
        line = decode_stdin(data, stdin.encoding, self.offset)
        self.offset += len(data)
        return line.removesuffix("\n").removesuffix("\r") if line else None


def open_input() -> ChatInput:
    """Raises CommandError if standard input is closed."""
    with open_stdin() as stdin:
        return ChatInput(stdin.isatty())


def _edit_line() -> str:
    import readline  # noqa: F401  # enables editing in input(); imported here because only a terminal needs it

    return input(PROMPT)
