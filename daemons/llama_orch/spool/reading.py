"""Reading the files of a spool directory, whoever wrote them, without being led astray.

The directory is opened once and every file relative to it, without following links and without waiting (a FIFO
would block). Blocking calls: run in a thread.
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

from llama_orch.spool.stored import Identity, is_document

SIZE_LIMIT = 64 * 1024
ENTRY_LIMIT = 10_000
DOCUMENT_LIMIT = 1024
WRITER = "engine-provisioner"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class SpoolUnreadable(Exception):
    """The directory itself cannot be read: which, why, and what mends it."""


@dataclass(frozen=True)
class Document:
    """A file's contents, not yet understood."""

    identity: Identity
    content: bytes


@dataclass(frozen=True)
class Refused:
    """A file that must not be read, and why."""

    identity: Identity
    reason: str


def trusted_owners() -> frozenset[int]:
    """The user ids whose files are read: root, this process's own, and engine-provisioner where it exists."""
    owners = {0, os.geteuid()}
    with suppress(KeyError):
        owners.add(pwd.getpwnam(WRITER).pw_uid)
    return frozenset(owners)


@contextmanager
def opened(directory: Path) -> Iterator[int | None]:
    """A descriptor of `directory`, or None where there is none. Raises SpoolUnreadable."""
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
        return SpoolUnreadable(f"{directory} is a link or no directory; it must be a directory itself")
    reason = error.strerror or str(error)
    return SpoolUnreadable(f"{directory} cannot be read: {reason}; this daemon's user needs read and search access")


def read_all(directory: Path, owners: frozenset[int]) -> Iterator[Document | Refused]:
    """Each document in `directory` in the order of the names, at most DOCUMENT_LIMIT; none if it is missing.

    Files that vanish meanwhile are left out. Raises SpoolUnreadable.
    """
    with opened(directory) as fd:
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


def read_one(directory_fd: int, name: str, owners: frozenset[int]) -> Document | Refused:
    """The file `name`, or why it is not read. Raises FileNotFoundError where it has gone, and SpoolUnreadable."""
    try:
        fd = os.open(name, FILE, dir_fd=directory_fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in EXHAUSTED:  # this process's trouble, not the file's
            raise SpoolUnreadable(f"{name} cannot be opened: {error.strerror}") from error
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        return Refused(_identity(name, status), _unopenable(status, error))
    try:
        return _read(fd, name, owners)
    finally:
        os.close(fd)


def _unopenable(status: os.stat_result, error: OSError) -> str:
    if not stat.S_ISREG(status.st_mode):
        return f"is {_kind(status.st_mode)}; only regular files are read"
    return f"cannot be opened: {error.strerror or error}; the group of the directory must be able to read it"


def _read(fd: int, name: str, owners: frozenset[int]) -> Document | Refused:
    status = os.fstat(fd)
    if reason := objection(status, owners):
        return Refused(_identity(name, status), reason)
    try:
        content = _content(fd)
    except OSError as error:
        return Refused(_identity(name, status), f"cannot be read: {error.strerror or error}")
    if len(content) > SIZE_LIMIT:
        return Refused(_identity(name, status), f"is larger than {SIZE_LIMIT} bytes")
    digest = hashlib.sha256(content).hexdigest()
    return Document(_identity(name, status, digest), content)


def _content(fd: int) -> bytes:
    """All of the file, or one byte more than is allowed: it may grow between the look and the reading."""
    parts, size = [], 0
    while size <= SIZE_LIMIT and (part := os.read(fd, SIZE_LIMIT + 1 - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def objection(status: os.stat_result, owners: frozenset[int]) -> str | None:
    """Why a file with this status must not be read, or None."""
    if not stat.S_ISREG(status.st_mode):
        return f"is {_kind(status.st_mode)}; only regular files are read"
    if status.st_size > SIZE_LIMIT:
        return f"is {status.st_size} bytes large; at most {SIZE_LIMIT} are read"
    if status.st_uid not in owners:
        allowed = ", ".join(map(str, sorted(owners)))
        return f"belongs to user id {status.st_uid}; only files of the user ids {allowed} are read"
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
