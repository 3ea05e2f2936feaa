"""The file queen.marks: which open tasks have delivered tokens, and which have ended.

A token waits for this write. An SQLite transaction needs a thread and, under load, milliseconds; a write of eight bytes
takes one microsecond. The data is in the kernel's page cache and survives the death of the queen, including kill -9. It
is not flushed: a power failure may undo it, and the task then runs again.

The file is an array of 64-bit integers: the number of a task after its first token, the negated number after its end, 0
for unused space. Numbers are never reused (see `schema`), so that marks of erased tasks have no effect. A number never
crosses a page boundary and is therefore written completely or not at all; a torn tail is ignored.
"""

import contextlib
import os
import struct
from array import array
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

NAME = "queen.marks"
MARK = struct.Struct("=q")
SIZE = MARK.size
ALLOCATION = 32_768
"""The number of marks that space is allocated for at a time (256 KiB). Allocated space cannot fail on a full disk."""


def read(path: Path) -> Sequence[int]:
    """Return all marks in the file, none if it does not exist. Blocks. Raises OSError."""
    marks = array("q")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return marks
    marks.frombytes(content[: len(content) // SIZE * SIZE])
    return marks


class Marks:
    """The open file. Owns its descriptor. Each mark blocks the calling thread for a write of eight bytes.

    `live` are the marks of tasks that the database still has. When the allocated space is used up, they are copied to a
    new file.
    """

    def __init__(self, path: Path, live: Iterable[int]) -> None:
        """Replace the file by a new one and flush it. Raises OSError."""
        self.path = path
        self._fd = -1
        self._live = {abs(mark): mark for mark in live}
        self._replace_file()
        os.fsync(self._fd)

    def is_delivered(self, number: int) -> bool:
        """Return whether the task has delivered a token and has not ended."""
        return self._live.get(number, 0) > 0

    def is_ended(self, number: int) -> bool:
        return self._live.get(number, 0) < 0

    def mark_delivered(self, number: int) -> None:
        """Raises OSError."""
        if number not in self._live:
            self._write(number)

    def mark_ended(self, number: int) -> None:
        """Raises OSError."""
        self._write(-number)

    def forget(self, numbers: Collection[int]) -> None:
        """Drop the marks of tasks that the database has erased."""
        for number in numbers:
            self._live.pop(number, None)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _write(self, mark: int) -> None:
        self._live[abs(mark)] = mark
        if self._end >= self._allocated:
            with contextlib.suppress(OSError):  # the old file then grows as long as there is space
                self._replace_file()
        os.pwrite(self._fd, MARK.pack(mark), self._end)
        self._end += SIZE

    def _replace_file(self) -> None:
        """Write the live marks to a new file and replace the old one, which stays in use on failure. Raises OSError."""
        content = array("q", self._live.values()).tobytes()
        draft = self.path.with_name(f".{NAME}.new")
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, len(content) + ALLOCATION * SIZE)
            os.pwrite(fd, content, 0)
            draft.rename(self.path)
        except OSError:
            os.close(fd)
            draft.unlink(missing_ok=True)
            raise
        self.close()
        self._fd, self._end, self._allocated = fd, len(content), len(content) + ALLOCATION * SIZE
