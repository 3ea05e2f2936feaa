"""Opening the database: lock the directory, create the file if it is missing, check it, and connect.

A file that cannot be read is never replaced by a new one. The lock on the directory excludes a second queen.
"""

import fcntl
import logging
import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from queen_rbee.store.sqlite.failures import BUSY_HINT, DAMAGED_HINT, FOREIGN_HINT, failure
from queen_rbee.store.sqlite.schema import APPLICATION, VERSION, create

log = logging.getLogger(__name__)

NAME = "queen.sqlite3"
DIRECTORY_MODE = 0o750
FILE_MODE = 0o600
CACHE_KIB = 512
STATEMENTS = 32
CHECK_LIMIT_S = 10.0
"""How long the integrity check may take. The rest of a larger file is not checked."""
CHECK_STEPS = 10_000
"""The number of SQLite instructions between two looks at the clock."""

PRAGMAS = (
    # there is only one process, so the index of the WAL needs no shared memory file
    "locking_mode=EXCLUSIVE",
    "secure_delete=ON",
    # BatchLoop decides when: a checkpoint inside a commit would delay its callers
    "wal_autocheckpoint=0",
    f"cache_size=-{CACHE_KIB}",
    "mmap_size=0",
    # a temporary file would contain prompts
    "temp_store=MEMORY",
    "trusted_schema=OFF",
)


def lock(directory: Path) -> int:
    """Lock the directory, creating it if necessary; return the descriptor. Raises OSError, StoreFailure.

    SQLite's own lock is not sufficient: it is lost when any part of this process opens and closes the file (fcntl(2)),
    and a conflict would be detected too late.
    """
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise failure("another queen-rbee uses {directory}", BUSY_HINT, directory / NAME) from error
    return fd


def connect(directory: Path, lock_fd: int) -> sqlite3.Connection:
    """Connect to the database of a locked directory. Use the connection in one thread at a time.

    Blocks for CHECK_LIMIT_S or slightly longer if the file is large. Raises sqlite3.Error, OSError, StoreFailure.
    """
    file = directory / NAME
    if file.is_symlink():
        raise failure("{file} is a symbolic link", FOREIGN_HINT, file)
    if not file.exists():
        _create(file, lock_fd)
    if file.stat().st_size == 0:
        raise failure("{file} is empty: it was truncated", DAMAGED_HINT, file)
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


def _create(file: Path, lock_fd: int) -> None:
    """Create a new database atomically."""
    log_file = file.with_name(f"{NAME}-wal")
    if log_file.exists() and log_file.stat().st_size:
        raise failure("{file} is missing, but its write-ahead log {detail} exists", DAMAGED_HINT, file, log_file.name)
    draft = file.with_name(f".{NAME}.new")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE))
    create(draft)
    draft.rename(file)
    os.fsync(lock_fd)


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    for setting in PRAGMAS:
        connection.execute(f"PRAGMA {setting}").fetchall()
    application, version = (_query_pragma(connection, name) for name in ("application_id", "user_version"))
    if application != APPLICATION:
        raise failure("{file} is not a database of queen-rbee", FOREIGN_HINT, file)
    if version != VERSION:
        detail = f"layout {version}, supported is {VERSION}"
        hint = "Install the release of llama-orch that wrote it, or a newer one. " + DAMAGED_HINT
        raise failure("{file} was written by another release ({detail})", hint, file, detail)
    if _query_pragma(connection, "journal_mode=WAL") != "wal":
        raise failure("cannot enable the write-ahead log of {file}", FOREIGN_HINT, file)
    _check(connection, file)


def _query_pragma(connection: sqlite3.Connection, pragma: str) -> object:
    (answer,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return answer


def _check(connection: sqlite3.Connection, file: Path) -> None:
    """Check the integrity of the database for about CHECK_LIMIT_S. Raises StoreFailure, sqlite3.Error."""
    deadline = time.monotonic() + CHECK_LIMIT_S
    connection.set_progress_handler(lambda: time.monotonic() > deadline, CHECK_STEPS)
    try:
        result = str(_query_pragma(connection, "quick_check(1)"))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        log.warning(
            "%s is too large for an integrity check within %g s; using it without a complete check", file, CHECK_LIMIT_S
        )
        return
    finally:
        connection.set_progress_handler(None, 0)
    if result != "ok":
        raise failure("{file} is damaged ({detail})", DAMAGED_HINT, file, " ".join(result.split()))
