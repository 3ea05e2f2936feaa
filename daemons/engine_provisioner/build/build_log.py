"""The log of a build: kept on disk in bounded size, with the last lines at hand for error messages."""

from collections import deque
from pathlib import Path

from llama_orch.files import durable

HALF_BYTES = 4 << 20
TAIL_LINES = 20
TAIL_COLUMNS = 180


class BuildLog:
    """The log at `path`. When it exceeds HALF_BYTES, its older half is `PATH.1`.

    All methods but `tail` block, and raise OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._older = path.with_name(f"{path.name}.1")
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._size = 0

    def begin(self) -> None:
        """Start an empty log, which replaces the one of the last attempt."""
        self._older.unlink(missing_ok=True)
        self.path.write_bytes(b"")
        self.path.chmod(durable.GROUP_READABLE)
        self._size = 0
        self._lines.clear()

    def append(self, lines: list[str]) -> None:
        """Add lines, which have no newline at their end."""
        self._lines.extend(line for line in lines if line.strip())
        content = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        if self._size + len(content) > HALF_BYTES:
            self.path.rename(self._older)
            self._size = 0
        with self.path.open("ab") as file:
            file.write(content)
        self._size += len(content)

    def tail(self) -> list[str]:
        """Return the last lines that are not empty, each cut to TAIL_COLUMNS."""
        return [line if len(line) <= TAIL_COLUMNS else f"{line[: TAIL_COLUMNS - 1]}…" for line in self._lines]
