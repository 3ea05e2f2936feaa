"""Errors of the HTTP API: codes, body, and the exception that handlers raise."""

from enum import StrEnum
from typing import Literal

from llama_orch.contracts.base import Outbound


class ErrorCode(StrEnum):
    """All error codes, on which clients branch."""

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
    KEY_EXPIRED = "KEY_EXPIRED"
    KEY_FORBIDDEN = "KEY_FORBIDDEN"
    RATE_LIMITED = "RATE_LIMITED"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"


NAME_LIMIT = 128
"""Characters of a name in an error message."""
NO_SUCH_PATH: Literal["no_such_path"] = "no_such_path"
Reason = Literal["context_length_exceeded", "no_such_path", "previous_response_not_found"]
"""`context_length_exceeded` is OpenAI's code for more tokens of prompt and answer than the context has.
`no_such_path` distinguishes an not_found path from an not_found object. `previous_response_not_found` is
OpenAI's code for a response that cannot be continued."""


class FieldProblem(Outbound):
    """One invalid field of a request."""

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
    """Ends a request with `status` and `body`. May be raised anywhere below an HTTP handler."""

    def __init__(self, status: int, body: ErrorBody, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(body.message)
        self.status = status
        self.body = body
        self.headers = headers


def not_found(what: str, name: str, hint: str) -> ApiError:
    """Return a 404 for an object of the kind `what` that does not exist."""
    message = f"there is no {what} {name[:NAME_LIMIT]}"
    return ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message=message, hint=hint))
