"""Converts errors of SQLite and the kernel to StoreFailure: what failed, where, and how to correct it."""

import sqlite3
from pathlib import Path

from queen_rbee.store.protocol import StoreFailure

DISK_FULL_HINT = (
    "Make room, at least 32 MiB, or move the directory. Pending writes are stored as soon as there is space."
)
DAMAGED_HINT = (
    "Restore a backup, or move the files away (mv {file}* /some/where) and start with an empty database. The accepted "
    "tasks, sessions, catalog and artifacts in it are then lost."
)
FOREIGN_HINT = "Move the file away, or configure another directory (StateDirectory=, STATE_DIRECTORY)."
BUSY_HINT = "Stop the other program (fuser -v {file} shows it), or give each queen-rbee its own directory."
UNWRITABLE_HINT = (
    "The user of queen-rbee must own the directory and its files, on a file system mounted read-write. Check "
    "ls -la {directory} and findmnt -T {directory}."
)
DISK_HINT = "See the kernel log (journalctl -k -p warning). An exhausted quota causes the same error."
UNKNOWN_HINT = "Restart queen-rbee. If the error recurs, it is a bug in queen-rbee: report it with this message."

MESSAGES = {
    sqlite3.SQLITE_FULL: ("the file system of {directory} is full", DISK_FULL_HINT),
    sqlite3.SQLITE_CORRUPT: ("{file} is damaged ({detail})", DAMAGED_HINT),
    sqlite3.SQLITE_NOTADB: ("{file} is not a SQLite database", DAMAGED_HINT),
    sqlite3.SQLITE_BUSY: ("{file} is in use by another program", BUSY_HINT),
    sqlite3.SQLITE_LOCKED: ("{file} is in use by another program", BUSY_HINT),
    sqlite3.SQLITE_READONLY: ("{file} cannot be written ({detail})", UNWRITABLE_HINT),
    sqlite3.SQLITE_CANTOPEN: ("{file} cannot be opened ({detail})", UNWRITABLE_HINT),
    sqlite3.SQLITE_PERM: ("{file} cannot be opened ({detail})", UNWRITABLE_HINT),
    sqlite3.SQLITE_IOERR: ("{file} cannot be read or written ({detail})", DISK_HINT),
}
"""The message and the hint by SQLite's primary result code."""


def to_store_failure(error: Exception, file: Path) -> StoreFailure:
    """Convert an error that occurred while using the database `file`."""
    if isinstance(error, StoreFailure):
        return error
    if isinstance(error, OSError):
        path = Path(str(error.filename)) if error.filename else file
        return failure("{file} cannot be used ({detail})", UNWRITABLE_HINT, path, error.strerror or str(error))
    if isinstance(error, ValueError | TypeError):
        return failure("{file} is damaged ({detail})", DAMAGED_HINT, file, str(error))
    # the lower eight bits are the primary result code: sqlite.org/rescode.html
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    message, hint = MESSAGES.get(code, ("{file} cannot be used ({detail})", UNKNOWN_HINT))
    return failure(message, hint, file, str(error))


def failure(message: str, hint: str, file: Path, detail: str = "") -> StoreFailure:
    """Return a failure with `{file}`, `{directory}` and `{detail}` replaced in message and hint."""
    values = {"file": str(file), "directory": str(file.parent), "detail": detail}
    return StoreFailure(message.format_map(values), hint.format_map(values))
