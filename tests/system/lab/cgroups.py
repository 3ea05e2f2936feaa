"""A control group for each machine. The machine's systemd needs its own root group, and sees only that.

Supports hosts with the unified hierarchy and with the hybrid of v1 and v2.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ControlGroup:
    """A group in every hierarchy that systemd uses for processes."""

    name: str

    @property
    def directories(self) -> list[Path]:
        """The directory of the group in each hierarchy."""
        hybrid = [MOUNT / "systemd", MOUNT / "unified"]
        return [root / self.name for root in hybrid if root.is_dir()] or [MOUNT / self.name]

    def create(self) -> None:
        """Create the group. Raises OSError without permission."""
        for directory in self.directories:
            directory.mkdir(exist_ok=True)

    def command(self, words: list[str]) -> list[str]:
        """Return a command that runs `words` in the group from the start."""
        join = [f"echo $$ >{directory}/cgroup.procs" for directory in self.directories]
        return ["sh", "-ec", "; ".join([*join, 'exec "$@"']), "sh", *words]

    def pids(self) -> set[int]:
        """Return the processes in the group and its subgroups."""
        listed = (Path(parent) / "cgroup.procs" for parent, _below, _files in self._tree())
        return {int(pid) for file in listed for pid in _read(file).split()}

    def kill(self) -> None:
        """Send SIGKILL to all processes of the group."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Remove the group and its subgroups. Raises OSError if there are processes in them."""
        for parent, _below, _files in self._tree():
            with suppress(FileNotFoundError):
                Path(parent).rmdir()

    def _tree(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walk the subgroups bottom-up. Groups can disappear meanwhile."""
        for directory in self.directories:
            yield from os.walk(directory, topdown=False)


def _read(file: Path) -> str:
    with suppress(OSError):
        return file.read_text()
    return ""
