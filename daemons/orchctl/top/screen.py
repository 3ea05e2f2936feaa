"""The terminal while the view is on it: another screen, keys without Enter, and all of it undone at the end."""

import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from orchctl.output import terminal_size
from orchctl.top.spans import Line, escape

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""The alternate screen, without cursor, and lines that do not wrap: terminals differ about the width of characters."""
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Screen:
    """Owns the terminal of standard input and output within its block. Lines that have not changed are not sent."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._input = sys.stdin.fileno()
        self._modes = termios.tcgetattr(self._input)
        self._drawn: list[str] = []

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Take the terminal."""
        self._set_modes()
        self._drawn = []
        self._send(ENTER)

    def leave(self) -> None:
        """Give the terminal back as it was, unless it has gone."""
        self._drawn = []
        with suppress(OSError, termios.error):
            self._send(LEAVE)
        with suppress(termios.error):
            termios.tcsetattr(self._input, termios.TCSAFLUSH, self._modes)

    def renew(self) -> None:
        """Draw everything anew next time: another size, or others have used the terminal while this one was stopped."""
        self._set_modes()
        self._drawn = []
        self._send("\x1b[2J")

    def _set_modes(self) -> None:
        """Get keys without Enter. Keys that wait are kept: setcbreak would flush them."""
        tty.setcbreak(self._input, termios.TCSADRAIN)

    @property
    def size(self) -> tuple[int, int]:
        return terminal_size() or (80, 24)

    def draw(self, lines: Sequence[Line]) -> None:
        texts = [escape(line, colours=self._colours) for line in lines]
        before = self._drawn + [""] * (len(texts) - len(self._drawn))
        # erased first: after a line of full width, erasing would take its last character
        changed = (
            f"\x1b[{row};1H\x1b[2K{text}"
            for row, (text, old) in enumerate(zip(texts, before, strict=False), 1)
            if text != old
        )
        self._drawn = texts
        self._send("".join(changed))

    def _send(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
