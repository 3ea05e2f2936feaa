"""From an error of SQLite or of the kernel to what an operator can read: what, where, and how to mend it."""

import sqlite3
from pathlib import Path

from queen_rbee.store.protocol import StoreFailure

FULL = "Make room there, 32 MiB at least, or move the directory; what waits is stored as soon as there is room."
DAMAGED = (
    "Put back a copy from before the damage; or move the files aside (mv {file}* /some/where) and start again with "
    "none: the accepted tasks, sessions, catalog and artifacts in them are lost then."
)
FOREIGN = "Move the file away, or have the queen use another directory (StateDirectory=, STATE_DIRECTORY)."
BUSY = "End the other program (fuser -v {file} names it), or give each queen a directory of its own."
UNWRITABLE = (
    "The user that queen-rbee runs as must own the directory and its files, on a file system that is mounted "
    "read-write: ls -la {directory}; findmnt -T {directory}."
)
DISK = "The kernel's log says more (journalctl -k -p warning); a quota that is used up reads the same."
OTHER = "Restart queen-rbee. If it happens again, it is an error of queen-rbee's own: report it with this text."

CODES = {
    sqlite3.SQLITE_FULL: ("the file system of {directory} is full", FULL),
    sqlite3.SQLITE_CORRUPT: ("{file} is damaged ({words})", DAMAGED),
    sqlite3.SQLITE_NOTADB: ("{file} is no SQLite database", DAMAGED),
    sqlite3.SQLITE_BUSY: ("{file} is in use by another program", BUSY),
    sqlite3.SQLITE_LOCKED: ("{file} is in use by another program", BUSY),
    sqlite3.SQLITE_READONLY: ("{file} cannot be written to ({words})", UNWRITABLE),
    sqlite3.SQLITE_CANTOPEN: ("{file} cannot be opened ({words})", UNWRITABLE),
    sqlite3.SQLITE_PERM: ("{file} cannot be opened ({words})", UNWRITABLE),
    sqlite3.SQLITE_IOERR: ("{file} cannot be read or written ({words})", DISK),
}


def in_words(error: Exception, file: Path) -> StoreFailure:
    """The failure that `error`, met in using the database `file`, is for whoever reads it."""
    if isinstance(error, StoreFailure):
        return error
    if isinstance(error, OSError):
        path = Path(str(error.filename)) if error.filename else file
        return failure("{file} cannot be used ({words})", UNWRITABLE, path, error.strerror or str(error))
    if isinstance(error, ValueError | TypeError):
        return failure("{file} is damaged ({words})", DAMAGED, file, str(error))
    # the lower eight bits are the kind of error, the rest is its place: sqlite.org/rescode.html
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    message, hint = CODES.get(code, ("{file} cannot be used ({words})", OTHER))
    return failure(message, hint, file, str(error))


def failure(message: str, hint: str, file: Path, words: str = "") -> StoreFailure:
    """The two texts with their places filled in."""
    places = {"file": str(file), "directory": str(file.parent), "words": words}
    return StoreFailure(message.format_map(places), hint.format_map(places))
