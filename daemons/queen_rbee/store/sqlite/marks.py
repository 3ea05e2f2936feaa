"""What has become of open tasks, known at once and at the price of one small write: the file queen.marks.

SQLite is not used for this because a token waits for it: a transaction costs a thread and, under load, milliseconds,
a write of eight bytes one microsecond. What is written is in the kernel's page cache and survives the death of the
queen, kill -9 included. It is not flushed: a power cut may undo it, and then a task runs once more.

The file is an array of 64-bit numbers: a task's own number once a token of it was shown, the same negated once it has
ended, 0 where nothing was written yet. Numbers are never used twice (see `sqlite_opening`), so that marks of tasks that
are gone mean nothing. A number never straddles a page and is there whole or not at all; a torn tail is ignored.
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
ROOM = 32_768
"""For how many marks room is allocated at once (256 KiB): what has its room cannot fail for a full disk."""


def read(path: Path) -> Sequence[int]:
    """All marks in the file; none where there is no file. Blocks; raises OSError."""
    marks = array("q")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return marks
    marks.frombytes(content[: len(content) // SIZE * SIZE])
    return marks


class Marks:
    """The open file. Owns its descriptor; the calling thread blocks for as long as the kernel takes for eight bytes.

    `live` are the marks of tasks that the database still has. When the room is used up they move to a new file.
    """

    def __init__(self, path: Path, live: Iterable[int]) -> None:
        """A new file in place of the old one, flushed. Raises OSError."""
        self.path = path
        self._fd = -1
        self._live = {abs(mark): mark for mark in live}
        self._renew()
        os.fsync(self._fd)

    def shown(self, number: int) -> bool:
        """Whether a token of the task was shown, and it has not ended."""
        return self._live.get(number, 0) > 0

    def gone(self, number: int) -> bool:
        """Whether the task has ended."""
        return self._live.get(number, 0) < 0

    def delivered(self, number: int) -> None:
        """A token of the task is about to be shown. Raises OSError."""
        if number not in self._live:
            self._write(number)

    def ended(self, number: int) -> None:
        """The task has ended. Raises OSError."""
        self._write(-number)

    def forget(self, numbers: Collection[int]) -> None:
        """The database has erased these tasks."""
        for number in numbers:
            self._live.pop(number, None)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _write(self, mark: int) -> None:
        self._live[abs(mark)] = mark
        if self._end >= self._room:
            with contextlib.suppress(OSError):  # then the old file grows, as long as it can
                self._renew()
        os.pwrite(self._fd, MARK.pack(mark), self._end)
        self._end += SIZE

    def _renew(self) -> None:
        """Begin a file with what is live; the old one is replaced, or stays in use where that fails."""
        content = array("q", self._live.values()).tobytes()
        draft = self.path.with_name(f".{NAME}.new")
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, len(content) + ROOM * SIZE)
            os.pwrite(fd, content, 0)
            draft.rename(self.path)
        except OSError:
            os.close(fd)
            draft.unlink(missing_ok=True)
            raise
        self.close()
        self._fd, self._end, self._room = fd, len(content), len(content) + ROOM * SIZE
