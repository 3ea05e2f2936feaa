"""A writable root file system on top of a read-only one. Owns the mount and the written files."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.engines.cache import discard


@dataclass(frozen=True)
class Overlay:
    """An overlay in `directory`. The writable tree is `root`."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def mount(self, lower: Path) -> None:
        """Mount the overlay on `lower`. Raises CalledProcessError if the kernel or file system does not support it."""
        upper, work = self.directory / "upper", self.directory / "work"
        for path in (upper, work, self.root):
            path.mkdir(parents=True)
        # volatile: do not sync, because nothing outlives the mount. This halves the time of an installation.
        options = f"lowerdir={lower},upperdir={upper},workdir={work},volatile"
        command = ["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def remove(self) -> None:
        """Unmount the overlay and delete the written files, including those of an earlier run."""
        while self.root.is_mount():
            subprocess.run(["umount", str(self.root)], check=True, capture_output=True)
        discard(self.directory)
