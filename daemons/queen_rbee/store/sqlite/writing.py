"""From a batch to the statements that write it, in one transaction, with as few of them as can be.

Few for the sake of the thread that serves requests: after each statement this one must get Python's lock back, which
beside a busy thread takes milliseconds each time (64 tasks row by row 760 ms, by one statement 38 ms, measured).
"""

import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from queen_rbee.store.protocol import BOUNDS, Kind
from queen_rbee.store.sqlite.batch import Batch, DocumentRow, Removal, TaskRow
from queen_rbee.store.sqlite.schema import PADDING

ROWS = 256
"""Rows in one statement at most."""

COLUMNS = {
    "task": (
        "number, id, job, submitted, correlation, traceparent, request, padding",
        f"column1, column2, column3, column4, column5, column6, column7, zeroblob({PADDING})",
        7,
    ),
    "document": ("key, tag, stored, body", "column1, column2, column3, column4", 4),
}
"""Columns of a table, where they come from, and how many values a row brings."""


@cache
def _insertion(table: str, layout: str, rows: int) -> str:
    """A statement for up to so many rows; those whose first value is NULL are none."""
    columns, sources, width = COLUMNS[layout]
    values = ", ".join([f"({', '.join('?' * width)})"] * rows)
    chosen = f"SELECT {sources} FROM (VALUES {values}) WHERE column1 IS NOT NULL"  # noqa: S608 -- names of our own
    return f"INSERT OR REPLACE INTO {table} ({columns}) {chosen}"


def insert(connection: sqlite3.Connection, table: str, layout: str, rows: Sequence[TaskRow | DocumentRow]) -> None:
    """Insert or replace `rows`. Of each size only one statement is prepared: the next power of two."""
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        size = 1 << (len(some) - 1).bit_length()
        nothing = (None,) * (COLUMNS[layout][2] * (size - len(some)))
        values = (*itertools.chain.from_iterable(some), *nothing)
        connection.execute(_insertion(table, layout, size), values)


def begin(connection: sqlite3.Connection) -> int:
    """A queen has come: her number. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE queen SET opened = opened + 1")
    (opened,) = connection.execute("SELECT opened FROM queen").fetchone()
    connection.execute("COMMIT")
    return int(opened)


def _erase(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    statement = "DELETE FROM task WHERE number IN (SELECT value FROM json_each(?))"
    connection.execute(statement, (json.dumps(numbers),))


class Writer:
    """Writes batches; counts what is put, so that BOUNDS are kept."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._durable: bool | None = None
        self._put = Counter[Kind](BOUNDS)

    def write(self, batch: Batch) -> None:
        """All of `batch`, or sqlite3.Error and nothing of it."""
        self._wait_for_disk(batch.durable)
        if batch.tasks and len(batch.tasks) <= ROWS and not (batch.gone or batch.documents or batch.ping):
            self._write_tasks(batch)  # one statement is a transaction by itself
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._write_all(batch)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._put.update(BOUNDS)  # what was trimmed is there again
            raise

    def _wait_for_disk(self, durable: bool) -> None:
        """FULL flushes the log with each commit, NORMAL with checkpoints only."""
        if durable != self._durable:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _write_all(self, batch: Batch) -> None:
        if batch.gone:
            _erase(self._connection, batch.gone)
        self._write_tasks(batch)
        for kind, changes in batch.documents.items():
            self._change(kind, changes)
        if batch.ping or batch.repairs:
            self._connection.execute("UPDATE queen SET pings = pings + 1")

    def _write_tasks(self, batch: Batch) -> None:
        insert(self._connection, "task", "task", [*batch.tasks.values()])

    def _change(self, kind: Kind, changes: Sequence[DocumentRow | Removal]) -> None:
        for change in _runs(changes):
            if isinstance(change, Removal):
                statement = f"DELETE FROM {kind} WHERE key = ?"  # noqa: S608 -- one of five words
                change.found = self._connection.execute(statement, (change.key,)).rowcount > 0
            else:
                insert(self._connection, kind, "document", change)
                self._put[kind] += len(change)
        self._trim(kind)

    def _trim(self, kind: Kind) -> None:
        """Remove the oldest; a hundredth of the bound at a time, since counting costs."""
        bound = BOUNDS.get(kind)
        if bound is None or self._put[kind] <= bound // 100:
            return
        (count,) = self._connection.execute(f"SELECT count(*) FROM {kind}").fetchone()  # noqa: S608
        surplus = count - (bound - bound // 100)
        oldest = f"SELECT number FROM {kind} ORDER BY number LIMIT ?"  # noqa: S608
        self._connection.execute(f"DELETE FROM {kind} WHERE number IN ({oldest})", (max(0, surplus),))  # noqa: S608
        self._put[kind] = 0


def _runs(changes: Sequence[DocumentRow | Removal]) -> Iterator[Removal | list[DocumentRow]]:
    """Rows that follow one another together, removals alone, in order."""
    rows: list[DocumentRow] = []
    for change in changes:
        if isinstance(change, Removal):
            if rows:
                yield rows
            rows = []
            yield change
        else:
            rows.append(change)
    if rows:
        yield rows
