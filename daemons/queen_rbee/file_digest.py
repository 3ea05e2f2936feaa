"""SHA-256 of a file on this machine, by threads, block by block: hashing can be cancelled between two blocks."""

import hashlib
import os
import stat
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


async def file_digest(path: Path) -> str:
    """The file's `sha256:…`. Raises Unreadable."""
    try:
        file = await trio.to_thread.run_sync(_opened, path)
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


def _opened(path: Path) -> FileIO:
    """A regular file, opened without waiting for anybody (a FIFO would). Blocks; raises OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return FileIO(descriptor)
    os.close(descriptor)  # FileIO refuses a directory and leaves its descriptor open
    raise OSError("it is no regular file")


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
