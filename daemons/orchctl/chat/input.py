"""What is said to `orchctl chat`, line by line: typed at a terminal with editing, or read from a pipe or a file.

Reading blocks, and nothing else runs meanwhile: there is no thread that could be left behind, and Ctrl-C gets through.
"""

import sys
from dataclasses import dataclass
from typing import TextIO

from orchctl.texts import decoded, standard_input

PROMPT = "> "


@dataclass
class ChatInput:
    """ChatInput of standard input; `typed` is whether a person types them, `offset` how many bytes have been read."""

    typed: bool
    offset: int = 0

    def next(self) -> str | None:
        """The next line without its end; None behind the last one. Raises CommandError, and KeyboardInterrupt.

        A person who presses Ctrl-C instead of typing has said the last one.
        """
        with standard_input() as stdin:
            return self._asked(stdin) if self.typed else self._read(stdin)

    def _asked(self, stdin: TextIO) -> str | None:
        try:
            if sys.stdout.isatty():
                return _edited()
            # the answers go elsewhere, and the prompt must not follow them
            print(PROMPT, end="", file=sys.stderr, flush=True)
            return self._read(stdin)
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)  # the shell's own prompt gets a line of its own
            return None

    def _read(self, stdin: TextIO) -> str | None:
        data = stdin.buffer.readline()
        line = decoded(data, stdin.encoding, self.offset)
        self.offset += len(data)
        return line.removesuffix("\n").removesuffix("\r") if line else None


def lines() -> ChatInput:
    """Whatever comes on standard input. Raises CommandError where it is closed."""
    with standard_input() as stdin:
        return ChatInput(stdin.isatty())


def _edited() -> str:
    import readline  # noqa: F401  # input() edits with it, and only a terminal needs it

    return input(PROMPT)
