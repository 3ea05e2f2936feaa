"""A writable root file system over one that is never changed. Owns the mount and what was written."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.engines.cache import discard


@dataclass(frozen=True)
class Overlay:
    """An overlay kept under `directory`; the writable tree is `root`."""

    directory: Path

    @property
    def root(self) -> Path:
        """The merged tree."""
        return self.directory / "root"

    def mount(self, lower: Path) -> None:
        """Mount it over `lower`. Raises CalledProcessError where the kernel or the file system cannot."""
        upper, work = self.directory / "upper", self.directory / "work"
        for path in (upper, work, self.root):
            path.mkdir(parents=True)
        # volatile: nothing is synced to the disk, since nothing outlives the mount; half the time of an installation
        options = f"lowerdir={lower},upperdir={upper},workdir={work},volatile"
        command = ["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def remove(self) -> None:
        """Unmount it and forget what was written; also what is left of one from an earlier run."""
        while self.root.is_mount():
            subprocess.run(["umount", str(self.root)], check=True, capture_output=True)
        discard(self.directory)
