"""How a task that failed is told to a client that waits for its answer: a status and a body. Pure."""

from collections.abc import Mapping

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.engines.wire.passage import Endpoint
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
"""Statuses of tasks that fail after they were admitted; all others are 500."""


PROMPTS: Mapping[Endpoint, str] = {
    "completion": "prompt",
    "chat": "messages",
    "completions": "prompt",
    "embeddings": "input",
    "rerank": "documents",
}
"""The field of the prompt, as each endpoint's clients call it."""


def failure_of(task: Task) -> ApiError:
    """Why `task` failed, as an answer to its client; without `task.error` it is a defect of ours."""
    error = task.error
    if error is None:
        return ApiError(500, ErrorBody(code=ErrorCode.INTERNAL, message="the answer has no content"))
    code = ErrorCode(error.code)
    body = ErrorBody(
        code=code,
        message=error.message,
        reason=error.reason,
        fields=_too_long(task) if error.reason == "context_length_exceeded" else None,
        retriable=error.retriable,
        retry_after_ms=error.retry_after_ms,
        pool_id=task.place.pool_id,
    )
    return ApiError(STATUS.get(code, 500), body, retry_headers(error.retry_after_ms))


def _too_long(task: Task) -> list[FieldProblem]:
    """What does not fit is the prompt: an engine that has room for some of max_tokens is asked for that."""
    return [FieldProblem(field=PROMPTS[task.demand.endpoint], problem="is longer than the context of the model")]


def retry_headers(wait_ms: int | None) -> tuple[tuple[str, str], ...]:
    """When to come back: whole seconds for everybody, milliseconds for those who know them."""
    if wait_ms is None:
        return ()
    return (("retry-after", str(-(-wait_ms // 1000))), ("x-backoff-ms", str(wait_ms)))
