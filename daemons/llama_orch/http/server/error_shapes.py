"""Errors in the shape that a path's clients parse: our own, and under /v1 that of OpenAI or of Anthropic.

Pure. Both shapes carry our code, which says more than theirs, where their Python packages show it: as `code`, and as
`error_code`. Both packages try a 409 or 5xx again by themselves; `x-should-retry` tells them whether it helps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from llama_orch.contracts.errors import NO_SUCH_PATH, ApiError, ErrorBody

Shape = Literal["own", "openai", "anthropic"]

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
"""The types of https://docs.claude.com/en/api/errors; any other 4xx is an invalid_request_error, 5xx an api_error."""
OPENAI_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
"""Likewise; any other 4xx is an invalid_request_error, 5xx a server_error."""
MODEL_NOT_FOUND = "model_not_found"
"""OpenAI's own code, by which programs know that they must ask for another model."""
OVERLOADED = 529
"""Anthropic's status for what waiting mends; its clients know 503 as somebody else's."""
IDENTIFIERS: Mapping[Shape, str] = {"openai": "x-request-id", "anthropic": "request-id"}
"""The header in which each API's clients look for the id of a request."""
RERANK_ALIASES = ("/rerank", "/v2/rerank")
"""Where clients of Jina's, Cohere's and TEI's APIs ask for what is /v1/rerank here."""
ANTHROPIC_VERSION = "anthropic-version"
"""The header by which Anthropic's clients are known on the paths that both APIs have."""


@dataclass(frozen=True)
class ErrorAnswer:
    """An error as it goes out."""

    status: int
    body: Mapping[str, JsonValue]
    headers: tuple[tuple[str, str], ...]


def shape_of(path: str, *, anthropic: bool = False) -> Shape:
    """Whose errors the clients of `path` parse; `anthropic`: the request has the header ANTHROPIC_VERSION."""
    whose = "/".join(path.split("/", 3)[:3])
    if whose == "/v1/messages" or (anthropic and whose == "/v1/models"):
        return "anthropic"
    return "openai" if path.startswith("/v1/") or path in RERANK_ALIASES else "own"


def error_answer(error: ApiError, path: str, correlation_id: str | None, *, anthropic: bool = False) -> ErrorAnswer:
    """`error` as the answer to a request for `path`, with the header ANTHROPIC_VERSION or without."""
    shape, body = shape_of(path, anthropic=anthropic), error.body
    if shape == "own":
        own = body.model_copy(update={"correlation_id": correlation_id})
        return ErrorAnswer(error.status, own.model_dump(mode="json", exclude_none=True), error.headers)
    headers = (*error.headers, ("x-should-retry", str(body.retriable).lower()), *_exact_wait(body))
    if shape == "openai":
        return ErrorAnswer(error.status, openai_error(error.status, body), headers)
    return ErrorAnswer(_anthropic_status(error), anthropic_error(error, correlation_id), headers)


def anthropic_error(error: ApiError, correlation_id: str | None) -> dict[str, JsonValue]:
    """Anthropic's error object, which is also the data of a stream's `error` event."""
    status, body = _anthropic_status(error), error.body
    kind = ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    told: dict[str, JsonValue] = {
        "type": kind,
        "message": _words(body),
        "details": {"error_code": body.code.value},
    }
    return {"type": "error", "error": told, "request_id": correlation_id}


def _anthropic_status(error: ApiError) -> int:
    return OVERLOADED if error.status == 503 and error.body.retriable else error.status


def openai_error(status: int, body: ErrorBody) -> dict[str, JsonValue]:
    """OpenAI's error object, which is also the data of a stream's last event when it fails."""
    kind = OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    param = body.fields[0].field if body.fields else None
    reason = None if body.reason == NO_SUCH_PATH else body.reason
    code = MODEL_NOT_FOUND if (status, param) == (404, "model") else reason or body.code.value
    return {"error": {"message": _words(body), "type": kind, "param": param, "code": code}}


def _words(body: ErrorBody) -> str:
    """What a person needs: these shapes have no place for a hint of its own."""
    return f"{body.message}. {body.hint}" if body.hint else body.message


def _exact_wait(body: ErrorBody) -> tuple[tuple[str, str], ...]:
    """Both packages prefer this header to Retry-After, which has whole seconds."""
    return () if body.retry_after_ms is None else (("retry-after-ms", str(body.retry_after_ms)),)
