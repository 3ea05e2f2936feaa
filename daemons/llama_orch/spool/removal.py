"""Remove files from a handoff directory: delete taken files, move bad ones aside.

Both act only on the exact file that was read; a file that has replaced it stays. Links are moved, not followed. The
functions block: run them in a thread.
"""

import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llama_orch.spool.files import DIRECTORY, open_directory
from llama_orch.spool.handoffs import BadFile, HandoffFile
from llama_orch.spool.identity import Identity, printable

REJECTED = "rejected"
REASON = ".reason"
REJECTED_LIMIT = 100
NAME_LIMIT = 180
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Rejection:
    """The result of a rejection: the new path, or why the file could not be moved. Neither if it was already gone."""

    moved_to: str | None = None
    problem: str | None = None


def delete(directory: Path, found: HandoffFile) -> bool:
    """Remove a taken file, unless another one has its name by now. Raises OSError."""
    with open_directory(directory) as fd:
        if fd is None or not _is_unchanged(fd, found.identity):
            return False
        try:
            os.unlink(found.identity.name, dir_fd=fd)
        except FileNotFoundError:
            return False
        return True


def reject(directory: Path, bad: BadFile, now: datetime) -> Rejection:
    """Move a bad file to `rejected/` under a new name, next to a file with the reason.

    Creates `rejected/` if necessary, and deletes the oldest files above REJECTED_LIMIT. Raises SpoolUnreadable for the
    directory, nothing for the file.
    """
    with open_directory(directory) as fd:
        if fd is None or not _is_unchanged(fd, bad.identity):
            return Rejection()
        try:
            target = _open_rejected(fd)
        except OSError as error:
            return Rejection(problem=f"cannot open {REJECTED}/: {error.strerror or error}")
        try:
            return _move(fd, target, bad, now)
        finally:
            os.close(target)


def _is_unchanged(fd: int, identity: Identity) -> bool:
    try:
        status = os.stat(identity.name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return identity.same_file(status.st_ino, status.st_mtime_ns)


def _open_rejected(fd: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(REJECTED, 0o770, dir_fd=fd)
    return os.open(REJECTED, DIRECTORY, dir_fd=fd)


def _move(fd: int, target: int, bad: BadFile, now: datetime) -> Rejection:
    name = _new_name(bad.name, now)
    try:
        os.rename(bad.name, name, src_dir_fd=fd, dst_dir_fd=target)
    except FileNotFoundError:
        return Rejection()
    except OSError as error:
        return Rejection(problem=f"cannot move it: {error.strerror or error}")
    _write_reason(target, name + REASON, bad)
    _prune(target)
    return Rejection(moved_to=f"{REJECTED}/{printable(name)}")


def _new_name(name: str, now: datetime) -> str:
    """Return a unique name that sorts by time. `now` is in UTC."""
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    original = os.fsdecode(os.fsencode(name)[-NAME_LIMIT:])
    return f"{stamp}-{secrets.token_hex(4)}-{original}"


def _write_reason(target: int, name: str, bad: BadFile) -> None:
    """Write the reason, which is for people only. An error, such as a full disk, does not undo the move."""
    with suppress(OSError):
        fd = os.open(name, NEW_FILE, 0o640, dir_fd=target)
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{printable(bad.name)}: {bad.reason}\n")


def _prune(target: int) -> None:
    """Delete the oldest rejected files with their reasons, so that bad files cannot fill the disk."""
    names = sorted(name for name in os.listdir(target) if not name.endswith(REASON))
    for name in names[:-REJECTED_LIMIT]:
        for old in (name, name + REASON):
            _remove(target, old)


def _remove(target: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=target)
    except IsADirectoryError:
        shutil.rmtree(name, ignore_errors=True, dir_fd=target)
    except OSError:
        pass
