"""The database's layout, and how an empty one is made.

Each kind of document has a table of its own: rows stand in the order in which they were stored or replaced, so that the
newest and the oldest are found without an index and without a clock.

A task's `number` is made of two: which queen accepted it (the upper 32 bits, `queen.opened`) and its place among hers.
So numbers follow the order of admission, are never used twice, and tell how many queens have started since.

Why pages are small and `task` has padding: ended prompts must be gone from the files. PRAGMA secure_delete overwrites
what is deleted, but where SQLite moves rows between pages to balance its tree, copies of the moved ones stay behind in
free space (about one prompt of a thousand of mixed lengths, with 3.40). Only what does not fit into a row's own page
never moves: it has pages of its own, which are overwritten as a whole. Of a row longer than that at most PAGE - 35
bytes stay in the tree (sqlite.org/fileformat.html, "Cell payload"); the padding before the prompt takes them all.
"""

import sqlite3
from pathlib import Path

from queen_rbee.store.protocol import KINDS

APPLICATION = 0x6C6C6F71
"""`lloq`: what file(1) and we know the file by."""
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
    """An empty database in `file`, which must be an empty file. Blocks; raises sqlite3.Error."""
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
