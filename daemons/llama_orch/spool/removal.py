"""Taking files out of a handoff directory: deleting what was taken, moving aside what is bad.

Both act only on the very file that was looked at; what replaced it meanwhile stays. Nothing is followed: a link is
moved as a link. Blocking calls: run in a thread.
"""

import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llama_orch.spool.judging import Bad, Found
from llama_orch.spool.reading import DIRECTORY, opened
from llama_orch.spool.stored import Identity, printable

REJECTED = "rejected"
REASON = ".reason"
KEPT = 100
NAME_LIMIT = 180
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Rejection:
    """What became of a bad file: where it lies now, or why it could not be moved. Neither: it was gone already."""

    moved_to: str | None = None
    problem: str | None = None


def delete(directory: Path, found: Found) -> bool:
    """Remove a file that was taken, unless another has its name by now. Raises OSError where it may not."""
    with opened(directory) as fd:
        if fd is None or not _still_there(fd, found.identity):
            return False
        try:
            os.unlink(found.identity.name, dir_fd=fd)
        except FileNotFoundError:
            return False
        return True


def reject(directory: Path, bad: Bad, now: datetime) -> Rejection:
    """Move a bad file to `rejected/` under a new name, with its reason beside it; the oldest go beyond KEPT.

    `rejected/` is made if it is missing. Raises SpoolUnreadable for the directory, nothing for the file.
    """
    with opened(directory) as fd:
        if fd is None or not _still_there(fd, bad.identity):
            return Rejection()
        try:
            target = _rejected(fd)
        except OSError as error:
            return Rejection(problem=f"{REJECTED}/ cannot be used: {error.strerror or error}")
        try:
            return _move(fd, target, bad, now)
        finally:
            os.close(target)


def _still_there(fd: int, identity: Identity) -> bool:
    try:
        status = os.stat(identity.name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return identity.same_file(status.st_ino, status.st_mtime_ns)


def _rejected(fd: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(REJECTED, 0o770, dir_fd=fd)
    return os.open(REJECTED, DIRECTORY, dir_fd=fd)


def _move(fd: int, target: int, bad: Bad, now: datetime) -> Rejection:
    name = _new_name(bad.name, now)
    try:
        os.rename(bad.name, name, src_dir_fd=fd, dst_dir_fd=target)
    except FileNotFoundError:
        return Rejection()
    except OSError as error:
        return Rejection(problem=f"it cannot be moved: {error.strerror or error}")
    _write_reason(target, name + REASON, bad)
    _prune(target)
    return Rejection(moved_to=f"{REJECTED}/{printable(name)}")


def _new_name(name: str, now: datetime) -> str:
    """A name that sorts by time and is not taken. `now` is in UTC."""
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    kept = os.fsdecode(os.fsencode(name)[-NAME_LIMIT:])
    return f"{stamp}-{secrets.token_hex(4)}-{kept}"


def _write_reason(target: int, name: str, bad: Bad) -> None:
    """The reason is for people; a full disk, which may bear an empty file, does not keep the bad one where it was."""
    with suppress(OSError):
        fd = os.open(name, NEW_FILE, 0o640, dir_fd=target)
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{printable(bad.name)}: {bad.reason}\n")


def _prune(target: int) -> None:
    """Remove the oldest rejected files with their reasons, so that bad files cannot fill the disk."""
    names = sorted(name for name in os.listdir(target) if not name.endswith(REASON))
    for name in names[:-KEPT]:
        for old in (name, name + REASON):
            _remove(target, old)


def _remove(target: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=target)
    except IsADirectoryError:
        shutil.rmtree(name, ignore_errors=True, dir_fd=target)
    except OSError:
        pass
