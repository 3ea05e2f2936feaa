"""Writes a batch in one transaction, with as few statements as possible.

After each statement the thread must reacquire the GIL, which takes milliseconds next to a busy thread. Measured for 64
tasks: 760 ms row by row, 38 ms with one statement.
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

ROWS_PER_STATEMENT = 256

COLUMNS = {
    "task": (
        "number, id, job, submitted, correlation, traceparent, request, padding",
        f"column1, column2, column3, column4, column5, column6, column7, zeroblob({PADDING})",
        7,
    ),
    "document": ("key, tag, stored, body", "column1, column2, column3, column4", 4),
}
"""For each layout: the columns, the expressions for them, and the number of values in a row."""


@cache
def _insertion(table: str, layout: str, rows: int) -> str:
    """Return a statement for up to `rows` rows; rows whose first value is NULL are ignored."""
    columns, sources, width = COLUMNS[layout]
    values = ", ".join([f"({', '.join('?' * width)})"] * rows)
    chosen = f"SELECT {sources} FROM (VALUES {values}) WHERE column1 IS NOT NULL"  # noqa: S608 -- names are constants
    return f"INSERT OR REPLACE INTO {table} ({columns}) {chosen}"


def insert(connection: sqlite3.Connection, table: str, layout: str, rows: Sequence[TaskRow | DocumentRow]) -> None:
    """Insert or replace `rows`. Sizes are rounded up to powers of two, so that few statements are prepared."""
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        chunk = rows[start : start + ROWS_PER_STATEMENT]
        size = 1 << (len(chunk) - 1).bit_length()
        fill = (None,) * (COLUMNS[layout][2] * (size - len(chunk)))
        values = (*itertools.chain.from_iterable(chunk), *fill)
        connection.execute(_insertion(table, layout, size), values)


def count_start(connection: sqlite3.Connection) -> int:
    """Count the start of a queen and return its number. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE queen SET opened = opened + 1")
    (opened,) = connection.execute("SELECT opened FROM queen").fetchone()
    connection.execute("COMMIT")
    return int(opened)


def _erase(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    statement = "DELETE FROM task WHERE number IN (SELECT value FROM json_each(?))"
    connection.execute(statement, (json.dumps(numbers),))


class Writer:
    """Writes batches, and counts stored documents to enforce BOUNDS."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._durable: bool | None = None
        self._put_counts = Counter[Kind](BOUNDS)

    def write(self, batch: Batch) -> None:
        """Write `batch` completely, or raise sqlite3.Error and write nothing."""
        self._set_synchronous(batch.durable)
        if (
            batch.tasks
            and len(batch.tasks) <= ROWS_PER_STATEMENT
            and not (batch.erased or batch.documents or batch.ping)
        ):
            self._write_tasks(batch)  # a single statement is a transaction
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._write_all(batch)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._put_counts.update(BOUNDS)  # the rollback has restored trimmed documents
            raise

    def _set_synchronous(self, durable: bool) -> None:
        """FULL flushes the log with every commit, NORMAL only with checkpoints."""
        if durable != self._durable:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _write_all(self, batch: Batch) -> None:
        if batch.erased:
            _erase(self._connection, batch.erased)
        self._write_tasks(batch)
        for kind, changes in batch.documents.items():
            self._apply_changes(kind, changes)
        if batch.ping or batch.repairs:
            self._connection.execute("UPDATE queen SET pings = pings + 1")

    def _write_tasks(self, batch: Batch) -> None:
        insert(self._connection, "task", "task", [*batch.tasks.values()])

    def _apply_changes(self, kind: Kind, changes: Sequence[DocumentRow | Removal]) -> None:
        for change in _runs(changes):
            if isinstance(change, Removal):
                statement = f"DELETE FROM {kind} WHERE key = ?"  # noqa: S608 -- a Literal
                change.found = self._connection.execute(statement, (change.key,)).rowcount > 0
            else:
                insert(self._connection, kind, "document", change)
                self._put_counts[kind] += len(change)
        self._trim(kind)

    def _trim(self, kind: Kind) -> None:
        """Remove the oldest documents. Counting is expensive, so it is done once per hundredth of the bound."""
        bound = BOUNDS.get(kind)
        if bound is None or self._put_counts[kind] <= bound // 100:
            return
        (count,) = self._connection.execute(f"SELECT count(*) FROM {kind}").fetchone()  # noqa: S608
        surplus = count - (bound - bound // 100)
        oldest = f"SELECT number FROM {kind} ORDER BY number LIMIT ?"  # noqa: S608
        self._connection.execute(f"DELETE FROM {kind} WHERE number IN ({oldest})", (max(0, surplus),))  # noqa: S608
        self._put_counts[kind] = 0


def _runs(changes: Sequence[DocumentRow | Removal]) -> Iterator[Removal | list[DocumentRow]]:
    """Group consecutive rows; removals stay single. The order is kept."""
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
