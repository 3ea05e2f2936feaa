"""What is read from the database; each function is one statement.

SQLite gives a damaged row's column in whatever type it seems to have: all raise ValueError or TypeError then.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from queen_rbee.store.protocol import Document, Kind, StoredTask

QUEEN_SHIFT = 32
"""How far the number of the queen stands to the left in a task's number."""

COLUMNS = "key, body, tag, stored"
T = TypeVar("T")


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def _document(row: Iterable[Any]) -> Document:
    key, body, tag, stored = row
    return Document(_of(str, key), _of(str, body), _of(str, tag), _of(float, stored))


def get(connection: sqlite3.Connection, kind: Kind, key: str) -> Document | None:
    """One document."""
    row = connection.execute(f"SELECT {COLUMNS} FROM {kind} WHERE key = ?", (key,)).fetchone()  # noqa: S608 -- a Literal
    return _document(row) if row else None


def listed(
    connection: sqlite3.Connection, kind: Kind, tag: str | None, before: str | None, limit: int
) -> Sequence[Document]:
    """Documents, the newest first."""
    conditions = ["tag = :tag"] * (tag is not None)
    if before is not None:
        # no such document: NULL, and nothing is smaller
        conditions.append(f"number < (SELECT number FROM {kind} WHERE key = :before)")  # noqa: S608
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    statement = f"SELECT {COLUMNS} FROM {kind} {where} ORDER BY number DESC LIMIT :limit"  # noqa: S608
    return [_document(row) for row in connection.execute(statement, {"tag": tag, "before": before, "limit": limit})]


def numbers(connection: sqlite3.Connection) -> dict[UUID, int]:
    """The number of each task."""
    return {UUID(bytes=task_id): number for task_id, number in connection.execute("SELECT id, number FROM task")}


def tasks(connection: sqlite3.Connection, opened: int) -> list[tuple[int, StoredTask]]:
    """All tasks with their numbers, in the order of admission; `opened` is the number of the queen who asks."""
    rows = connection.execute(
        "SELECT number, id, job, request, correlation, submitted, traceparent FROM task ORDER BY number"
    )
    return [
        (
            number,
            StoredTask(
                task_id=UUID(bytes=task_id),
                job_id=UUID(bytes=job_id),
                request=_of(bytes, request).decode(),
                correlation_id=_of(str, correlation),
                submitted=_of(float, submitted),
                traceparent=_of(str, traceparent) if traceparent is not None else None,
                generation=opened - (number >> QUEEN_SHIFT),
            ),
        )
        for number, task_id, job_id, request, correlation, submitted, traceparent in rows
    ]
