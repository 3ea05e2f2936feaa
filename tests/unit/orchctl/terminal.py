"""orchctl on a real terminal: a pty that a test types at and reads, and what a tty would see on it."""

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.unit.orchctl.running import LIMIT_S, command, environment

CTRL_C, CTRL_D, BACKSPACE, UP = b"\x03", b"\x04", b"\x7f", b"\x1b[A"


@dataclass
class Terminal:
    """The master side of the pty, and the process that has the other side as its controlling terminal."""

    master: int
    process: subprocess.Popen[bytes]
    output: bytes = b""
    read_to: int = 0

    def type(self, keys: bytes) -> None:
        """Press these keys."""
        os.write(self.master, keys)

    def wait_for(self, text: str) -> None:
        """Return when `text` has appeared behind what was waited for before. Fails with all of the output."""
        deadline = time.monotonic() + LIMIT_S
        while (found := self.output.find(text.encode(), self.read_to)) < 0:
            assert self._more(deadline - time.monotonic()), f"{text!r} does not appear: {self.output!r}"
        self.read_to = found + len(text.encode())

    def end(self) -> int:
        """The exit status, when the process ends by itself, with everything it said read."""
        deadline = time.monotonic() + LIMIT_S
        while self._more(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def heard(self, limit_s: float) -> bytes:
        """All that was said, with what is said within `limit_s` seconds."""
        self._more(limit_s)
        return self.output

    def wait_until_it_waits(self) -> None:
        """Return when the process sleeps: what is pressed a moment after a prompt would find it on its way there."""
        deadline = time.monotonic() + LIMIT_S
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline, "it does not come to rest"

    @property
    def screen(self) -> list[str]:
        """The lines that are seen."""
        return screen(self.output.decode())

    def _more(self, limit_s: float) -> bool:
        """Read what there is; False where nothing comes any more."""
        if not select.select([self.master], [], [], max(0.0, limit_s))[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self.output += data
        return bool(data)


def screen(output: str) -> list[str]:
    """What a terminal shows that has been sent `output`: a carriage return goes back, what follows replaces."""
    lines, column = [""], 0
    for character in output:
        if character == "\r":
            column = 0
        elif character == "\n":
            lines.append("")
            column = 0
        else:
            lines[-1] = lines[-1][:column].ljust(column) + character + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


@contextmanager
def terminal(*arguments: str, columns: int = 0, **given: str) -> Iterator[Terminal]:
    """orchctl with a terminal of its own, `columns` wide (0: unknown); result if the block leaves it running."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    try:
        with subprocess.Popen(
            ["setsid", "--ctty", *command(*arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(TERM="dumb", INPUTRC=os.devnull, **given),
        ) as process:
            os.close(slave)
            try:
                yield Terminal(master, process)
            finally:
                process.kill()
    finally:
        os.close(master)
