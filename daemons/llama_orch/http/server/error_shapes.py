"""Format errors for the clients of a path: our own format, under /v1 that of OpenAI or Anthropic, under /api that of
Ollama. Pure functions.

OpenAI's and Anthropic's carry our code, which is more specific than theirs, where their Python packages show it: as
`code` and as `error_code`. Both packages retry a 409 or 5xx by themselves; `x-should-retry` tells them whether to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from llama_orch.contracts.errors import NO_SUCH_PATH, ApiError, ErrorBody

ErrorFormat = Literal["own", "openai", "anthropic", "ollama"]

ANTHROPIC_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Types from https://docs.claude.com/en/api/errors. Any other 4xx is invalid_request_error, any other 5xx api_error."""
OPENAI_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
"""OpenAI's types. Any other 4xx is invalid_request_error, any other 5xx server_error."""
MODEL_NOT_FOUND = "model_not_found"
"""OpenAI's code for an unknown model, which programs react to."""
OVERLOADED = 529
"""Anthropic's status for a temporary overload, sent instead of a retriable 503."""
IDENTIFIERS: Mapping[ErrorFormat, str] = {"openai": "x-request-id", "anthropic": "request-id"}
"""The header in which the clients of each API expect the request id."""
RERANK_ALIASES = ("/rerank", "/v2/rerank")
"""Paths of Jina's, Cohere's and TEI's clients for /v1/rerank."""
OLLAMA_PREFIX = "/api/"
ANTHROPIC_VERSION = "anthropic-version"
"""The header that identifies Anthropic's clients on paths that both APIs have."""


@dataclass(frozen=True)
class ErrorAnswer:
    """A formatted error."""

    status: int
    body: Mapping[str, JsonValue]
    headers: tuple[tuple[str, str], ...]


def shape_of(path: str, *, anthropic: bool = False) -> ErrorFormat:
    """Return the error format of `path`. `anthropic`: the request has the header ANTHROPIC_VERSION."""
    prefix = "/".join(path.split("/", 3)[:3])
    if prefix == "/v1/messages" or (anthropic and prefix == "/v1/models"):
        return "anthropic"
    if path.startswith(OLLAMA_PREFIX):
        return "ollama"
    return "openai" if path.startswith("/v1/") or path in RERANK_ALIASES else "own"


def error_answer(error: ApiError, path: str, correlation_id: str | None, *, anthropic: bool = False) -> ErrorAnswer:
    """Return the answer to a request for `path` that fails with `error`. `anthropic` as in `shape_of`."""
    shape, body = shape_of(path, anthropic=anthropic), error.body
    if shape == "own":
        own = body.model_copy(update={"correlation_id": correlation_id})
        return ErrorAnswer(error.status, own.model_dump(mode="json", exclude_none=True), error.headers)
    headers = (*error.headers, ("x-should-retry", str(body.retriable).lower()), *_exact_wait(body))
    if shape == "openai":
        return ErrorAnswer(error.status, openai_error(error.status, body), headers)
    if shape == "ollama":
        return ErrorAnswer(error.status, ollama_error(body), headers)
    return ErrorAnswer(_anthropic_status(error), anthropic_error(error, correlation_id), headers)


def anthropic_error(error: ApiError, correlation_id: str | None) -> dict[str, JsonValue]:
    """Return Anthropic's error object, which is also the data of a stream's `error` event."""
    status, body = _anthropic_status(error), error.body
    kind = ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    details: dict[str, JsonValue] = {
        "type": kind,
        "message": _message_with_hint(body),
        "details": {"error_code": body.code.value},
    }
    return {"type": "error", "error": details, "request_id": correlation_id}


def _anthropic_status(error: ApiError) -> int:
    return OVERLOADED if error.status == 503 and error.body.retriable else error.status


def openai_error(status: int, body: ErrorBody) -> dict[str, JsonValue]:
    """Return OpenAI's error object, which is also the data of the last event of a failed stream."""
    kind = OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    param = body.fields[0].field if body.fields else None
    reason = None if body.reason == NO_SUCH_PATH else body.reason
    code = MODEL_NOT_FOUND if (status, param) == (404, "model") else reason or body.code.value
    return {"error": {"message": _message_with_hint(body), "type": kind, "param": param, "code": code}}


def ollama_error(body: ErrorBody) -> dict[str, JsonValue]:
    """Return Ollama's error object, which is also the last line of a failed stream."""
    return {"error": _message_with_hint(body)}


def _message_with_hint(body: ErrorBody) -> str:
    """Return message and hint in one text: the foreign formats have no field for a hint."""
    return f"{body.message}. {body.hint}" if body.hint else body.message


def _exact_wait(body: ErrorBody) -> tuple[tuple[str, str], ...]:
    """Return the header that both packages prefer to Retry-After, which has whole seconds."""
    return () if body.retry_after_ms is None else (("retry-after-ms", str(body.retry_after_ms)),)
