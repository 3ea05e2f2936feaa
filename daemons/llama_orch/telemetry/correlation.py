"""The correlation id of the request a task is working for; every log record made under it carries it."""

import re
import uuid
from contextvars import ContextVar

HEADER = "x-correlation-id"
current: ContextVar[str | None] = ContextVar("correlation_id", default=None)


def accepted(value: str | None) -> str:
    """The caller's id if it is a plain token of at most 128 characters, else a new uuid4."""
    if value and re.fullmatch(r"[A-Za-z0-9._:+/=-]{1,128}", value):
        return value
    return str(uuid.uuid4())
