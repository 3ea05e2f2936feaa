"""Errors as clients meet them: the codes, the body, and the exception that carries one to the edge."""

from enum import StrEnum
from typing import Literal

from llama_orch.contracts.base import Outbound


class ErrorCode(StrEnum):
    """The closed set of codes; clients branch on these."""

    ADMISSION_REJECT = "ADMISSION_REJECT"
    QUEUE_FULL_DROP_LRU = "QUEUE_FULL_DROP_LRU"
    INVALID_PARAMS = "INVALID_PARAMS"
    POOL_UNREADY = "POOL_UNREADY"
    POOL_UNAVAILABLE = "POOL_UNAVAILABLE"
    REPLICA_EXHAUSTED = "REPLICA_EXHAUSTED"
    DEADLINE_UNMET = "DEADLINE_UNMET"
    DECODE_TIMEOUT = "DECODE_TIMEOUT"
    WORKER_RESET = "WORKER_RESET"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"
    NOT_FOUND = "NOT_FOUND"
    MISSING_TOKEN = "MISSING_TOKEN"  # noqa: S105
    BAD_TOKEN = "BAD_TOKEN"  # noqa: S105
    NON_LOOPBACK_WITHOUT_TOKEN = "NON_LOOPBACK_WITHOUT_TOKEN"  # noqa: S105
    FORBIDDEN_HOST = "FORBIDDEN_HOST"
    FORBIDDEN_ORIGIN = "FORBIDDEN_ORIGIN"


NO_SUCH_PATH: Literal["no_such_path"] = "no_such_path"
Reason = Literal["context_length_exceeded", "no_such_path"]
"""What clients of OpenAI's API look for as `code`: prompt and answer have more tokens than the context. And what tells
a path that a daemon does not have from a thing that it does not know."""


class FieldProblem(Outbound):
    """One field of a request that cannot be accepted."""

    field: str
    problem: str


class ErrorBody(Outbound):
    """The JSON body of every HTTP error and, without `correlation_id`, of every SSE `error` event."""

    code: ErrorCode
    message: str
    reason: Reason | None = None
    hint: str | None = None
    retriable: bool = False
    retry_after_ms: int | None = None
    engine: str | None = None
    pool_id: str | None = None
    policy_label: str | None = None
    fields: list[FieldProblem] | None = None
    correlation_id: str | None = None


class ApiError(Exception):
    """Ends a request with `status` and `body`; raised anywhere below an HTTP handler."""

    def __init__(self, status: int, body: ErrorBody, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(body.message)
        self.status = status
        self.body = body
        self.headers = headers


def unknown(what: str, name: str, hint: str) -> ApiError:
    """404: there is no `what` (a noun) of that name."""
    return ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message=f"there is no {what} {name[:SHOWN]}", hint=hint))


SHOWN = 128
