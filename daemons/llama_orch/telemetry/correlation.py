"""Context variables of a request: the correlation id, which is in all its log records, and the caller's trace
(`traceparent`, W3C Trace Context). Every hop passes both on.
"""

import re
from contextvars import ContextVar

from llama_orch.ids import new_id

HEADER = "x-correlation-id"
current: ContextVar[str | None] = ContextVar("correlation_id", default=None)
traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
peer: ContextVar[str | None] = ContextVar("peer", default=None)
"""The address of the request's peer; None for a Unix socket."""


def passed_on() -> dict[str, str]:
    """Return the header that passes the current id on to another daemon; none outside of a request."""
    identifier = current.get()
    return {HEADER: identifier} if identifier else {}


def accepted(value: str | None) -> str:
    """Return the caller's id if it is a plain token of at most 128 characters, else a new random one."""
    if value and re.fullmatch(r"[A-Za-z0-9._:+/=-]{1,128}", value):
        return value
    return str(new_id())


def accepted_trace(value: str) -> str | None:
    """Return the caller's traceparent if it is well-formed (any version), else None, which ends the trace."""
    return value if re.fullmatch(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", value) else None
