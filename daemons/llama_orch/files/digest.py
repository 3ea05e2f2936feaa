"""SHA-256 of a local file, hashed block by block in threads: it can be cancelled between two blocks."""

import hashlib
import os
import stat
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import trio

BLOCK = 4 << 20


class Unreadable(Exception):
    """The file cannot be hashed; the text says why."""


def local_path(model_ref: str) -> Path | None:
    """Return the path of a `file:` reference (file:/a/b, file:///a/b, not percent-encoded), or None for others."""
    scheme, colon, rest = model_ref.partition(":")
    return Path("/" + rest.lstrip("/")) if scheme == "file" and colon else None


async def file_digest(path: Path, directories: Sequence[Path]) -> str:
    """Return the digest, as `sha256:…`, of a file below one of `directories`. Raises Unreadable.

    A digest reveals something of a file's content, so other files are refused even if the queen can read them.
    """
    try:
        file = await trio.to_thread.run_sync(_open, path, directories)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise Unreadable(_error_text(error)) from error
    with file:
        return await _hash(file)


async def _hash(file: FileIO) -> str:
    hasher = hashlib.sha256()
    try:
        before = _signature(file)
        remaining = before[0]
        while size := await trio.to_thread.run_sync(_hash_block, file, hasher):
            remaining -= size
            if remaining < 0:  # some kernel files never end
                raise Unreadable("it grows while it is read")
        if remaining or _signature(file) != before:
            raise Unreadable("it changed while it was read")
    except OSError as error:
        raise Unreadable(_error_text(error)) from error
    return f"sha256:{hasher.hexdigest()}"


def _open(path: Path, directories: Sequence[Path]) -> FileIO:
    """Open a regular file below `directories`, without blocking on a FIFO.

    Does disk I/O. Raises OSError, ValueError and Unreadable, whose text does not reveal whether a file outside of
    `directories` exists.
    """
    roots = [Path(os.path.realpath(directory)) for directory in directories]
    _check_inside(os.path.realpath(path), roots)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        # a symlink may have been placed meanwhile, so check the path of the open file
        _check_inside(os.readlink(f"/proc/self/fd/{descriptor}"), roots)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
    except (OSError, Unreadable):
        os.close(descriptor)
        raise
    return FileIO(descriptor)


def _check_inside(real: str, roots: Sequence[Path]) -> None:
    if not any(Path(real).is_relative_to(root) for root in roots):
        raise Unreadable(
            f"it is not below a model directory (LLORCH_MODEL_DIRS: {', '.join(map(str, roots)) or 'none'})"
        )


def _hash_block(file: FileIO, hasher: "hashlib._Hash") -> int:
    """Read and hash one block; return its size. Blocks; raises OSError."""
    block = file.read(BLOCK)
    hasher.update(block or b"")
    return len(block or b"")


def _signature(file: FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _error_text(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
