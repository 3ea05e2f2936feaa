"""Cache of test data that is expensive to make and the same for every run.

Owns $XDG_CACHE_HOME/llama-orch-tests (~/.cache/llama-orch-tests). Entries appear atomically. If several processes need
the same entry, only one makes it.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_root() -> Path:
    """Return the cache directory, and create it if it does not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(base) / "llama-orch-tests"
    root.mkdir(parents=True, exist_ok=True)
    return root


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return the path of the entry `name`. If it is missing, call `make` to create it at the given path."""
    entry = cache_root() / name
    if entry.exists():
        return entry
    with locked(name):
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
    """Remove a file or a tree if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the machine-wide lock `name` while the block lasts; the kernel releases it when its holder dies."""
    with (cache_root() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
