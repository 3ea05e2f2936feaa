"""Read the files of a spool directory without trusting their writers.

The directory is opened once, and every file relative to it, without following links and without blocking on a FIFO. The
functions do disk I/O: run them in a thread.
"""

import errno
import hashlib
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from llama_orch.spool.identity import Identity, is_document

SIZE_LIMIT = 64 * 1024
ENTRY_LIMIT = 10_000
DOCUMENT_LIMIT = 1024
WRITER = "engine-provisioner"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class SpoolUnreadable(Exception):
    """The directory cannot be read; the text names it, the reason and the remedy."""


@dataclass(frozen=True)
class SpoolFile:
    """The contents of a file, not yet parsed."""

    identity: Identity
    content: bytes


@dataclass(frozen=True)
class RefusedFile:
    """A file that is not read, and why."""

    identity: Identity
    reason: str


def trusted_owners() -> frozenset[int]:
    """Return the user ids whose files are read: root, this process's, and engine-provisioner's if it exists."""
    owners = {0, os.geteuid()}
    with suppress(KeyError):
        owners.add(pwd.getpwnam(WRITER).pw_uid)
    return frozenset(owners)


@contextmanager
def open_directory(directory: Path) -> Iterator[int | None]:
    """Open `directory` and yield its descriptor, or None if it does not exist. Raises SpoolUnreadable."""
    try:
        fd = os.open(directory, DIRECTORY)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise _unreadable(directory, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _unreadable(directory: Path, error: OSError) -> SpoolUnreadable:
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return SpoolUnreadable(f"{directory} is a link or not a directory; it must be a directory")
    reason = error.strerror or str(error)
    return SpoolUnreadable(f"cannot read {directory}: {reason}; the daemon's user needs read and search access")


def read_all(directory: Path, owners: frozenset[int]) -> Iterator[SpoolFile | RefusedFile]:
    """Yield the documents of `directory` in order of their names, at most DOCUMENT_LIMIT; none if it is missing.

    Files that vanish meanwhile are skipped. Raises SpoolUnreadable.
    """
    with open_directory(directory) as fd:
        if fd is None:
            return
        for name in _names(directory, fd):
            try:
                yield read_one(fd, name, owners)
            except FileNotFoundError:
                continue


def _names(directory: Path, fd: int) -> list[str]:
    try:
        with os.scandir(fd) as entries:
            names = [entry.name for entry in islice(entries, ENTRY_LIMIT) if is_document(entry.name)]
    except OSError as error:
        raise _unreadable(directory, error) from error
    return sorted(names)[:DOCUMENT_LIMIT]


def read_one(directory_fd: int, name: str, owners: frozenset[int]) -> SpoolFile | RefusedFile:
    """Read the file `name`, or return why it is refused. Raises FileNotFoundError and SpoolUnreadable."""
    try:
        fd = os.open(name, FILE, dir_fd=directory_fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in EXHAUSTED:  # the process is out of resources; the file may be good
            raise SpoolUnreadable(f"cannot open {name}: {error.strerror}") from error
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        return RefusedFile(_identity(name, status), _unopenable(status, error))
    try:
        return _read(fd, name, owners)
    finally:
        os.close(fd)


def _unopenable(status: os.stat_result, error: OSError) -> str:
    if not stat.S_ISREG(status.st_mode):
        return f"is {_kind(status.st_mode)}; only regular files are read"
    return f"cannot be opened: {error.strerror or error}; the group of the directory must be able to read it"


def _read(fd: int, name: str, owners: frozenset[int]) -> SpoolFile | RefusedFile:
    status = os.fstat(fd)
    if reason := objection(status, owners):
        return RefusedFile(_identity(name, status), reason)
    try:
        content = _content(fd)
    except OSError as error:
        return RefusedFile(_identity(name, status), f"cannot be read: {error.strerror or error}")
    if len(content) > SIZE_LIMIT:
        return RefusedFile(_identity(name, status), f"is larger than {SIZE_LIMIT} bytes")
    digest = hashlib.sha256(content).hexdigest()
    return SpoolFile(_identity(name, status, digest), content)


def _content(fd: int) -> bytes:
    """Return the whole file, or SIZE_LIMIT + 1 bytes: it may have grown since fstat."""
    parts, size = [], 0
    while size <= SIZE_LIMIT and (part := os.read(fd, SIZE_LIMIT + 1 - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def objection(status: os.stat_result, owners: frozenset[int]) -> str | None:
    """Return why a file with this status is refused, or None."""
    if not stat.S_ISREG(status.st_mode):
        return f"is {_kind(status.st_mode)}; only regular files are read"
    if status.st_size > SIZE_LIMIT:
        return f"is {status.st_size} bytes long (at most {SIZE_LIMIT} are read)"
    if status.st_uid not in owners:
        allowed = ", ".join(map(str, sorted(owners)))
        return f"belongs to user id {status.st_uid} (allowed: {allowed})"
    return None


KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)


def _kind(mode: int) -> str:
    return next((name for test, name in KINDS if test(mode)), "a device")


def _identity(name: str, status: os.stat_result, digest: str = "") -> Identity:
    return Identity(name, status.st_ino, status.st_mtime_ns, digest)
