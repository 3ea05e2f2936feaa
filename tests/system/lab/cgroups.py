"""A control group of its own for each machine: systemd inside one needs its own root, and sees only its own.

Works where the host has the unified hierarchy and where it has a hybrid of v1 and v2.
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
    """One group, made in every hierarchy that systemd keeps processes in."""

    name: str

    @property
    def directories(self) -> list[Path]:
        """Where the group is, or would be, in each hierarchy."""
        hybrid = [MOUNT / "systemd", MOUNT / "unified"]
        return [root / self.name for root in hybrid if root.is_dir()] or [MOUNT / self.name]

    def create(self) -> None:
        """Make the group. Raises OSError where this process may not."""
        for directory in self.directories:
            directory.mkdir(exist_ok=True)

    def command(self, words: list[str]) -> list[str]:
        """`words`, run in the group from their first moment on."""
        join = [f"echo $$ >{directory}/cgroup.procs" for directory in self.directories]
        return ["sh", "-ec", "; ".join([*join, 'exec "$@"']), "sh", *words]

    def pids(self) -> set[int]:
        """The processes in the group and in those below it."""
        listed = (Path(parent) / "cgroup.procs" for parent, _below, _files in self._tree())
        return {int(pid) for file in listed for pid in _read(file).split()}

    def kill(self) -> None:
        """SIGKILL all of them."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Remove the group and those below it. Raises OSError while a process is in one."""
        for parent, _below, _files in self._tree():
            with suppress(FileNotFoundError):
                Path(parent).rmdir()

    def _tree(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """What os.walk gives, the lowest first; groups may go while it walks."""
        for directory in self.directories:
            yield from os.walk(directory, topdown=False)


def _read(file: Path) -> str:
    with suppress(OSError):
        return file.read_text()
    return ""
