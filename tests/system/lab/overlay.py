"""A writable root file system on top of a read-only one. Owns the mount and the written files."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.engines.cache import discard


@dataclass(frozen=True)
class Overlay:
    """An overlay in `directory`. The writable tree is `root`; `upper` has what was written to it."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def upper(self) -> Path:
        return self.directory / "upper"

    def mount(self, *lower: Path) -> None:
        """Mount the overlay on `lower`, topmost first.

        Raises CalledProcessError if the kernel or file system does not support it.
        """
        work = self.directory / "work"
        for path in (self.upper, work, self.root):
            path.mkdir(parents=True)
        # volatile: do not sync, because nothing outlives the mount. This halves the time of an installation.
        options = f"lowerdir={':'.join(map(str, lower))},upperdir={self.upper},workdir={work},volatile"
        command = ["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def unmount(self) -> None:
        """Unmount the overlay if it is mounted. Raises CalledProcessError if a process uses it."""
        while self.root.is_mount():
            subprocess.run(["umount", str(self.root)], check=True, capture_output=True)

    def remove(self) -> None:
        """Unmount the overlay and delete the written files, including those of an earlier run."""
        self.unmount()
        discard(self.directory)
