"""The schema of the database, and its creation.

Each kind of document has its own table. Its rows are in the order in which they were stored or replaced, so that the
newest and the oldest are found without an index or a clock.

A task's `number` consists of the number of the queen that accepted it (the upper 32 bits, `queen.opened`) and of a
counter. Numbers therefore follow the order of admission, are never reused, and tell how many queens have started since.

Pages are small and `task` has padding because the prompts of ended tasks must be removed from the files. PRAGMA
secure_delete overwrites deleted rows. But when SQLite moves rows between pages to balance its tree, copies of the moved
rows remain in free space (measured with 3.40: about one prompt in a thousand of mixed lengths). Only overflow pages,
which hold the part of a row that does not fit into its page, are never moved, and they are overwritten completely. Of a
longer row, at most PAGE - 35 bytes stay in the tree (sqlite.org/fileformat.html, "Cell payload"); the padding before
the prompt occupies all of them.
"""

import sqlite3
from pathlib import Path

from queen_rbee.store.protocol import KINDS

APPLICATION = 0x6C6C6F71
"""`lloq`, the application id by which file(1) and queen-rbee identify the file."""
VERSION = 1
PAGE = 1024
PADDING = PAGE - 35

TASKS = """
CREATE TABLE task (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL, job BLOB NOT NULL, submitted REAL NOT NULL, correlation TEXT NOT NULL,
    traceparent TEXT, padding BLOB NOT NULL, request BLOB NOT NULL
);
CREATE TABLE queen (opened INTEGER NOT NULL, pings INTEGER NOT NULL);
INSERT INTO queen VALUES (0, 0);
"""
DOCUMENTS = """
CREATE TABLE {kind} (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, tag TEXT NOT NULL, stored REAL NOT NULL, body TEXT NOT NULL
);
CREATE INDEX {kind}_tag ON {kind} (tag);
"""


def create(file: Path) -> None:
    """Create an empty database in `file`, which must be an empty file. Blocks. Raises sqlite3.Error."""
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        connection.executescript(
            f"PRAGMA page_size={PAGE}; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA synchronous=FULL; BEGIN;"
            f"PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION}; {TASKS}"
            + "".join(DOCUMENTS.format(kind=kind) for kind in KINDS)
            + "COMMIT; PRAGMA journal_mode=WAL;"
        )
    finally:
        connection.close()
