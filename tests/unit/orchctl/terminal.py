"""orchctl on a pty: keys to type, output to wait for, and the resulting screen."""

import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.unit.orchctl.running import LIMIT_S, command, environment

CTRL_C, CTRL_D, CTRL_Z, BACKSPACE, UP = b"\x03", b"\x04", b"\x1a", b"\x7f", b"\x1b[A"


@dataclass
class Terminal:
    """The master side of a pty, and the process whose controlling terminal is the slave side."""

    master: int
    process: subprocess.Popen[bytes]
    output: bytes = b""
    searched_to: int = 0

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait_for(self, text: str) -> None:
        """Wait until `text` appears after the text of the previous wait; AssertionError after LIMIT_S."""
        deadline = time.monotonic() + LIMIT_S
        while (found := self.output.find(text.encode(), self.searched_to)) < 0:
            assert self._more(deadline - time.monotonic()), f"{text!r} does not appear: {self.output!r}"
        self.searched_to = found + len(text.encode())

    def end(self) -> int:
        """Read all output until the process ends by itself, and return its exit status."""
        deadline = time.monotonic() + LIMIT_S
        while self._more(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def read_output(self, limit_s: float) -> bytes:
        """Return all output, including that of the next `limit_s` seconds."""
        self._more(limit_s)
        return self.output

    def wait_until_it_waits(self) -> None:
        """Wait until the process sleeps: a key typed right after a prompt might arrive before it reads."""
        deadline = time.monotonic() + LIMIT_S
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline, "the process does not sleep"

    @property
    def screen(self) -> list[str]:
        return screen(self.output.decode())

    def _more(self, limit_s: float) -> bool:
        """Read available output; return False at the end of output or after `limit_s` seconds."""
        if not select.select([self.master], [], [], max(0.0, limit_s))[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self.output += data
        return bool(data)


DRAWN_LINE = re.compile(rb"\x1b\[(\d+);1H\x1b\[2K((?:[^\x1b]|\x1b\[[0-9;]*m)*)")


def drawn(output: bytes) -> list[str]:
    """Return the lines that orchctl top has drawn last on each row, without attributes."""
    lines = {int(row): re.sub(rb"\x1b\[[0-9;]*m", b"", text).decode() for row, text in DRAWN_LINE.findall(output)}
    return [lines.get(row, "") for row in range(1, max(lines, default=0) + 1)]


def screen(output: str) -> list[str]:
    """Return the lines of a terminal after `output`, in which text after a carriage return overwrites."""
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
def terminal(
    *arguments: str, columns: int = 0, rows: int = 24, term: str = "dumb", shell: str = "", **given: str
) -> Iterator[Terminal]:
    """Run orchctl on a pty of `columns` (0: unknown width); kill it if it still runs at the end of the block.

    With `shell`, run that script of bash with job control; its arguments are the command.
    """
    around = ["bash", "-mc", shell, "bash"] if shell else []
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (rows, columns))
    try:
        with subprocess.Popen(
            ["setsid", "--ctty", *around, *command(*arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(TERM=term, INPUTRC=os.devnull, **given),
        ) as process:
            os.close(slave)
            try:
                yield Terminal(master, process)
            finally:
                process.kill()
    finally:
        os.close(master)
