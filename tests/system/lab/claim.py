"""Ownership of the mounts, processes and control groups of a machine: a directory, locked by its test run.

The kernel releases the lock when the run ends for any reason. An unlocked directory therefore belongs to a run that
was killed, and the next run removes its machine.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engines.cache import cache_root, discard
from tests.system.lab.cgroups import ControlGroup
from tests.system.lab.overlay import Overlay
from tests.system.lab.waiting import until

PREFIX = "llama-orch-test-"


def _home() -> Path:
    home = cache_root() / "machines"
    home.mkdir(exist_ok=True)
    return home


@contextmanager
def claim(name: str) -> Iterator[Path]:
    """Create and lock the directory of the machine `name` for the duration of the block."""
    directory = _home() / name
    with (_home() / ".lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        sweep()
        directory.mkdir()
        lock = (directory / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield directory
        finally:
            remove(directory)


def control_group(directory: Path) -> ControlGroup:
    """Return the control group of the machine with this directory."""
    return ControlGroup(PREFIX + directory.name)


def overlay(directory: Path) -> Overlay:
    """Return the root file system of the machine with this directory."""
    return Overlay(directory / "overlay")


def end(directory: Path) -> None:
    """Kill the processes of the machine, and wait for their end. Raises TimeoutError."""
    group = control_group(directory)
    group.kill()
    until(lambda: not group.pids(), f"the processes of {directory.name} to end")


def remove(directory: Path) -> None:
    """Kill the processes of the machine and remove it."""
    end(directory)
    control_group(directory).remove()
    overlay(directory).remove()
    discard(directory)


def sweep() -> None:
    """Remove the machines of runs that have ended."""
    for directory in (path for path in _home().iterdir() if path.is_dir()):
        with (directory / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            remove(directory)
