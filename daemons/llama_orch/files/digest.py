"""SHA-256 of a file, computed block by block in threads: hashing can be cancelled between blocks."""

import hashlib
import os
import stat
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import trio

BLOCK = 4 << 20


class FileUnreadable(Exception):
    """The file cannot be hashed; the message says why."""


def local_path(model_ref: str) -> Path | None:
    """Return the path of a `file:` reference (file:/a/b or file:///a/b, without URL encoding), None for others."""
    scheme, colon, rest = model_ref.partition(":")
    return Path("/" + rest.lstrip("/")) if scheme == "file" and colon else None


async def file_digest(path: Path, directories: Sequence[Path]) -> str:
    """Return the `sha256:…` digest of a file below one of `directories`. Raises FileUnreadable.

    A digest reveals a file's content. The directories therefore limit it to models, whatever else the queen can read.
    """
    try:
        file = await trio.to_thread.run_sync(_open, path, directories)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise FileUnreadable(_reason(error)) from error
    with file:
        return await _hash(file)


async def _hash(file: FileIO) -> str:
    hasher = hashlib.sha256()
    try:
        before = _signature(file)
        remaining = before[0]
        while size := await trio.to_thread.run_sync(_hash_block, file, hasher):
            remaining -= size
            if remaining < 0:  # some files in /proc and /dev never end
                raise FileUnreadable("the file grows while it is read")
        if remaining or _signature(file) != before:
            raise FileUnreadable("the file changed while it was read")
    except OSError as error:
        raise FileUnreadable(_reason(error)) from error
    return f"sha256:{hasher.hexdigest()}"


def _open(path: Path, directories: Sequence[Path]) -> FileIO:
    """Open a regular file below `directories`. Blocks, but does not wait for the writer of a FIFO.

    Raises OSError, ValueError, and FileUnreadable. The message does not reveal whether a file outside exists.
    """
    roots = [Path(os.path.realpath(directory)) for directory in directories]
    _check_inside(os.path.realpath(path), roots)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        # the path may have become a symbolic link meanwhile, so check where the open file is
        _check_inside(os.readlink(f"/proc/self/fd/{descriptor}"), roots)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
    except (OSError, FileUnreadable):
        os.close(descriptor)
        raise
    return FileIO(descriptor)


def _check_inside(real: str, roots: Sequence[Path]) -> None:
    if not any(Path(real).is_relative_to(root) for root in roots):
        raise FileUnreadable(f"not below a model directory (LLORCH_MODEL_DIRS: {', '.join(map(str, roots)) or 'none'})")


def _hash_block(file: FileIO, hasher: "hashlib._Hash") -> int:
    """Return the number of bytes read and hashed. Blocks. Raises OSError."""
    block = file.read(BLOCK)
    hasher.update(block or b"")
    return len(block or b"")


def _signature(file: FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
