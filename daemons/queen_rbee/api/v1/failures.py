"""Translation of a failed task into the error response of a client that waits for the answer. Pure."""

from collections.abc import Mapping

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.engines.wire.passage import Endpoint
from llama_orch.http.server.preferences import applied
from queen_rbee.tasks.task import Task

STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.INVALID_PARAMS: 400,
    ErrorCode.POOL_UNAVAILABLE: 409,
    ErrorCode.CANCELLED: 409,
    ErrorCode.ADMISSION_REJECT: 429,
    ErrorCode.QUEUE_FULL_DROP_LRU: 429,
    ErrorCode.WORKER_RESET: 502,
    ErrorCode.POOL_UNREADY: 503,
    ErrorCode.REPLICA_EXHAUSTED: 503,
    ErrorCode.DECODE_TIMEOUT: 504,
    ErrorCode.DEADLINE_UNMET: 504,
}
"""Status of a task that fails after admission. Codes that are not listed are 500."""

UNREADABLE_ANSWER = "the engine sent a chunk that is not an OpenAI chat chunk"
PROMPT_FIELDS: Mapping[Endpoint, str] = {
    "completion": "prompt",
    "chat": "messages",
    "completions": "prompt",
    "embeddings": "input",
    "rerank": "documents",
}
"""The field that holds the prompt of each endpoint."""


def failure_of(task: Task) -> ApiError:
    """Return the failure of `task` as an HTTP error. A task without `task.error` is a defect: 500."""
    error = task.error
    if error is None:
        return ApiError(500, ErrorBody(code=ErrorCode.INTERNAL, message="the answer has no content"))
    code = ErrorCode(error.code)
    body = ErrorBody(
        code=code,
        message=error.message,
        reason=error.reason,
        fields=_prompt_too_long(task) if error.reason == "context_length_exceeded" else None,
        retriable=error.retriable,
        retry_after_ms=error.retry_after_ms,
        pool_id=task.place.pool_id,
    )
    headers = (*retry_headers(error.retry_after_ms), *applied(task.request.wait_s))
    return ApiError(STATUS.get(code, 500), body, headers)


def unreadable(task: Task) -> ApiError:
    """Return the failure of an engine whose answer cannot be translated."""
    body = ErrorBody(code=ErrorCode.WORKER_RESET, message=UNREADABLE_ANSWER, retriable=True, pool_id=task.place.pool_id)
    return ApiError(502, body)


def _prompt_too_long(task: Task) -> list[FieldProblem]:
    """Blame the prompt, not max_tokens: max_tokens is reduced to what the context has left."""
    field = PROMPT_FIELDS[task.demand.endpoint]
    return [FieldProblem(field=field, problem="is longer than the context of the model")]


def retry_headers(wait_ms: int | None) -> tuple[tuple[str, str], ...]:
    """Return Retry-After in whole seconds, rounded up, and X-Backoff-Ms in milliseconds."""
    if wait_ms is None:
        return ()
    return (("retry-after", str(-(-wait_ms // 1000))), ("x-backoff-ms", str(wait_ms)))
