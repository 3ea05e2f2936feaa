"""A control group of its own for each machine: systemd inside one needs its own root, and sees only its own.

Works where the host has the unified hierarchy and where it has a hybrid of v1 and v2.
"""

import os
import signal
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

    def kill(self) -> None:
        """SIGKILL everything in the group and in the groups below it."""
        for directory in self.directories:
            for listed in directory.rglob("cgroup.procs"):
                for pid in listed.read_text().split():
                    _kill(int(pid))

    def remove(self) -> None:
        """Remove the group and those below it. Raises OSError while a process is in one."""
        for directory in self.directories:
            below = sorted((path for path in directory.rglob("*") if path.is_dir()), reverse=True)
            for group in [*below, directory]:
                if group.is_dir():
                    group.rmdir()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
