"""From a directory to a connection that may be used: locked, made if it is new, checked, and never started afresh in
place of one that cannot be read.

Owns the lock on the directory, which keeps a second queen out.
"""

import fcntl
import logging
import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from queen_rbee.store.sqlite.failures import BUSY, DAMAGED, FOREIGN, failure
from queen_rbee.store.sqlite.schema import APPLICATION, VERSION, create

log = logging.getLogger(__name__)

NAME = "queen.sqlite3"
DIRECTORY_MODE = 0o750
FILE_MODE = 0o600
CACHE_KIB = 512
STATEMENTS = 32
CHECK_S = 10.0
"""How long the check at a start may take; what is larger is checked as far as that."""
CHECK_STEPS = 10_000

SETTINGS = (
    # one process only, so no shared memory: the index of the WAL is in this process, and no file beside the two
    "locking_mode=EXCLUSIVE",
    "secure_delete=ON",
    # ours to say when: a checkpoint inside a commit makes its callers wait
    "wal_autocheckpoint=0",
    f"cache_size=-{CACHE_KIB}",
    "mmap_size=0",
    # a temporary file would hold prompts
    "temp_store=MEMORY",
    "trusted_schema=OFF",
)


def lock(directory: Path) -> int:
    """The descriptor that holds the directory, which is made if need be. Raises OSError, StoreFailure.

    flock(2) on the directory and not SQLite's own lock alone: that one is lost when any part of this process opens and
    closes the file (fcntl(2)), and it tells of the other too late.
    """
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise failure("another queen-rbee uses {directory}", BUSY, directory / NAME) from error
    return fd


def connect(directory: Path, lock_fd: int) -> sqlite3.Connection:
    """The database of a locked directory, ready for use by one thread at a time.

    Blocks, up to CHECK_S and more for a large file. Raises sqlite3.Error, OSError, StoreFailure.
    """
    file = directory / NAME
    if file.is_symlink():
        raise failure("{file} is a link", FOREIGN, file)
    if not file.exists():
        _make(file, lock_fd)
    if file.stat().st_size == 0:
        raise failure("{file} is empty: it was cut off", DAMAGED, file)
    file.chmod(FILE_MODE)
    connection = sqlite3.connect(
        f"file:{quote(str(file))}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS,
        timeout=0,
    )
    try:
        _prepare(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection


def _make(file: Path, lock_fd: int) -> None:
    """A new database, there whole or not at all."""
    left = file.with_name(f"{NAME}-wal")
    if left.exists() and left.stat().st_size:
        raise failure("{file} is missing, but its last changes are there ({words})", DAMAGED, file, left.name)
    draft = file.with_name(f".{NAME}.new")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE))
    create(draft)
    draft.rename(file)
    os.fsync(lock_fd)


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    for setting in SETTINGS:
        connection.execute(f"PRAGMA {setting}").fetchall()
    application, version = (_asked(connection, name) for name in ("application_id", "user_version"))
    if application != APPLICATION:
        raise failure("{file} is not queen-rbee's: it is a database of another program", FOREIGN, file)
    if version != VERSION:
        words = f"layout {version}, this queen-rbee knows {VERSION}"
        hint = "Install the release of llama-orch that wrote it, or a newer one. " + DAMAGED
        raise failure("{file} was written by another release ({words})", hint, file, words)
    if _asked(connection, "journal_mode=WAL") != "wal":
        raise failure("{file} cannot have a write-ahead log", FOREIGN, file)
    _check(connection, file)


def _asked(connection: sqlite3.Connection, pragma: str) -> object:
    (answer,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return answer


def _check(connection: sqlite3.Connection, file: Path) -> None:
    """Look for damage, within CHECK_S or thereabouts. Raises StoreFailure, sqlite3.Error."""
    until = time.monotonic() + CHECK_S
    connection.set_progress_handler(lambda: time.monotonic() > until, CHECK_STEPS)
    try:
        found = str(_asked(connection, "quick_check(1)"))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        log.warning("%s is too large to be checked within %g s; it is used as it is", file, CHECK_S)
        return
    finally:
        connection.set_progress_handler(None, 0)
    if found != "ok":
        raise failure("{file} is damaged ({words})", DAMAGED, file, " ".join(found.split()))
