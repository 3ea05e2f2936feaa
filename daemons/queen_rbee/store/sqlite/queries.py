"""Queries of the database; each function runs one statement.

For a damaged row SQLite may return a column with any type. All functions then raise ValueError or TypeError.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from queen_rbee.store.protocol import Document, Kind, StoredTask

QUEEN_SHIFT = 32
"""The position of the queen's number in the number of a task: see `schema`."""

COLUMNS = "key, body, tag, stored"
T = TypeVar("T")


def _checked(expected: type[T], value: Any) -> T:
    if not isinstance(value, expected):
        raise TypeError(f"{type(value).__name__} instead of {expected.__name__}")
    return value


def _document(row: Iterable[Any]) -> Document:
    key, body, tag, stored = row
    return Document(_checked(str, key), _checked(str, body), _checked(str, tag), _checked(float, stored))


def get(connection: sqlite3.Connection, kind: Kind, key: str) -> Document | None:
    row = connection.execute(f"SELECT {COLUMNS} FROM {kind} WHERE key = ?", (key,)).fetchone()  # noqa: S608 -- a Literal
    return _document(row) if row else None


def listed(
    connection: sqlite3.Connection, kind: Kind, tag: str | None, before: str | None, limit: int
) -> Sequence[Document]:
    """Return documents, the newest first."""
    conditions = ["tag = :tag"] * (tag is not None)
    if before is not None:
        # without such a document the subquery is NULL, and no row matches
        conditions.append(f"number < (SELECT number FROM {kind} WHERE key = :before)")  # noqa: S608
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    statement = f"SELECT {COLUMNS} FROM {kind} {where} ORDER BY number DESC LIMIT :limit"  # noqa: S608
    return [_document(row) for row in connection.execute(statement, {"tag": tag, "before": before, "limit": limit})]


def task_numbers(connection: sqlite3.Connection) -> dict[UUID, int]:
    return {UUID(bytes=task_id): number for task_id, number in connection.execute("SELECT id, number FROM task")}


def tasks(connection: sqlite3.Connection, opened: int) -> list[tuple[int, StoredTask]]:
    """Return all tasks with their numbers, in the order of admission; `opened` is the number of the current queen."""
    rows = connection.execute(
        "SELECT number, id, job, request, correlation, submitted, traceparent FROM task ORDER BY number"
    )
    return [
        (
            number,
            StoredTask(
                task_id=UUID(bytes=task_id),
                job_id=UUID(bytes=job_id),
                request=_checked(bytes, request).decode(),
                correlation_id=_checked(str, correlation),
                submitted=_checked(float, submitted),
                traceparent=_checked(str, traceparent) if traceparent is not None else None,
                generation=opened - (number >> QUEEN_SHIFT),
            ),
        )
        for number, task_id, job_id, request, correlation, submitted, traceparent in rows
    ]
