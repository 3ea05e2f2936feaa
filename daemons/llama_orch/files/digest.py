"""SHA-256 of a file on this machine, by threads, block by block: hashing can be cancelled between two blocks."""

import hashlib
import os
import stat
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import trio

BLOCK = 4 << 20


class Unreadable(Exception):
    """The file has no digest; the text says why."""


def local_path(model_ref: str) -> Path | None:
    """The path that a `file:` reference names (file:/a/b, file:///a/b; nothing in it is encoded); None for others."""
    scheme, colon, rest = model_ref.partition(":")
    return Path("/" + rest.lstrip("/")) if scheme == "file" and colon else None


async def file_digest(path: Path, directories: Sequence[Path]) -> str:
    """The `sha256:…` of a file below one of `directories`. Raises Unreadable.

    A digest tells what is in a file, so that it is told of models only, whatever else the queen can read.
    """
    try:
        file = await trio.to_thread.run_sync(_opened, path, directories)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise Unreadable(_words(error)) from error
    with file:
        return await _hashed(file)


async def _hashed(file: FileIO) -> str:
    hasher = hashlib.sha256()
    try:
        before = _signature(file)
        left = before[0]
        while size := await trio.to_thread.run_sync(_hash_block, file, hasher):
            left -= size
            if left < 0:  # some files of the kernel's have no end
                raise Unreadable("it grows while it is read")
        if left or _signature(file) != before:
            raise Unreadable("it changed while it was read")
    except OSError as error:
        raise Unreadable(_words(error)) from error
    return f"sha256:{hasher.hexdigest()}"


def _opened(path: Path, directories: Sequence[Path]) -> FileIO:
    """A regular file below `directories`, opened without waiting for anybody (a FIFO would). Blocks; raises OSError,
    ValueError, and Unreadable, in the same words whether or not there is a file outside."""
    roots = [Path(os.path.realpath(directory)) for directory in directories]
    _check_inside(os.path.realpath(path), roots)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        # a symlink may have been put in place meanwhile: what counts is where the open file is
        _check_inside(os.readlink(f"/proc/self/fd/{descriptor}"), roots)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is no regular file")
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
    """Bytes that were read and hashed. Blocks; raises OSError."""
    block = file.read(BLOCK)
    hasher.update(block or b"")
    return len(block or b"")


def _signature(file: FileIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _words(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
