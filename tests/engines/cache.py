"""Things that are costly to make and the same for every run, kept once a machine.

Owns $XDG_CACHE_HOME/llama-orch-tests (~/.cache/llama-orch-tests): each entry appears whole or not at all, and of
several processes that want one only the first makes it.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_root() -> Path:
    """The directory that outlives a run; made if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(base) / "llama-orch-tests"
    root.mkdir(parents=True, exist_ok=True)
    return root


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The entry `name`; where it is missing, `make` builds it under the path that it is given."""
    entry = cache_root() / name
    if entry.exists():
        return entry
    with alone(name):
        if not entry.exists():
            _build(entry, make)
    return entry


def _build(entry: Path, make: Callable[[Path], None]) -> None:
    draft = entry.with_name(f".{entry.name}.draft")
    discard(draft)
    try:
        make(draft)
        draft.rename(entry)
    finally:
        discard(draft)


def discard(path: Path) -> None:
    """Remove a file or a tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the machine-wide lock `name` while the block lasts; the kernel releases it when its holder dies."""
    with (cache_root() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
