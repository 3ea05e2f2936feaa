"""The error responses of routes: each status once for each error format, as components to refer to."""

from typing import Literal

from pydantic import BaseModel, JsonValue

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.errors import ErrorBody, ErrorCode, Reason
from llama_orch.http.server.error_shapes import OVERLOADED, ErrorFormat, shape_of
from llama_orch.http.server.routes import Reply, Route, json_reply
from queen_rbee.api.parameters import BUDGET_HEADERS

_BACKOFF = ("Retry-After", "X-Backoff-Ms")
_CONFLICT = (
    "INVALID_PARAMS: the id is already in use. ADMISSION_REJECT: a limit of the session is reached. "
    "DEADLINE_UNMET: the task cannot finish before its deadline. POOL_UNAVAILABLE: the pool or the model is not "
    "available. CANCELLED: another client has cancelled the task."
)
_FULL = (
    "ADMISSION_REJECT, QUEUE_FULL_DROP_LRU: the queue is full, or the client does not wait for a free slot. "
    "RATE_LIMITED, BUDGET_EXHAUSTED: a limit of the user's key is reached."
)
_UNREADY = (
    "POOL_UNREADY: no suitable pool is ready, or no suitable model is loaded and the client does not wait. "
    "REPLICA_EXHAUSTED: several replicas failed in turn. ADMISSION_REJECT: queen-rbee is stopping. INTERNAL: "
    "queen-rbee cannot write to its store."
)

MEANINGS: dict[int, tuple[str, tuple[str, ...]]] = {
    400: ("INVALID_PARAMS: a field is invalid, or no pool can serve the request.", ()),
    401: (
        "MISSING_TOKEN, BAD_TOKEN: the daemon requires a token, and the request has none or a wrong one. "
        "KEY_EXPIRED: the key of the user has expired.",
        ("WWW-Authenticate",),
    ),
    403: (
        "The daemon has no token and refuses the request. NON_LOOPBACK_WITHOUT_TOKEN: it comes from another machine. "
        "FORBIDDEN_HOST: its Host header does not name this machine. FORBIDDEN_ORIGIN: a web page of another site sent "
        "it. KEY_FORBIDDEN: the key of the user does not permit the path, the endpoint, the model or the priority.",
        (),
    ),
    404: ("NOT_FOUND: the object does not exist, or no longer. INVALID_PARAMS: the model is retired.", ()),
    408: ("INVALID_PARAMS: the body did not arrive in time.", ()),
    409: (_CONFLICT, (*_BACKOFF, *BUDGET_HEADERS)),
    413: (
        "INVALID_PARAMS: the body is too long. The hint names the setting that raises the limit, if there is one.",
        (),
    ),
    415: ("INVALID_PARAMS: the body has a Content-Encoding other than gzip.", ("Accept-Encoding",)),
    429: (_FULL, (*_BACKOFF, "Preference-Applied")),
    500: ("INTERNAL: an internal error. See the log of queen-rbee.", ()),
    501: ("INTERNAL: the engine does not report how many tokens a prompt has.", ()),
    502: ("WORKER_RESET: the engine broke off the answer.", ()),
    503: (_UNREADY, (*_BACKOFF, "Preference-Applied")),
    504: ("DECODE_TIMEOUT: the engine has stalled. DEADLINE_UNMET: the deadline has passed.", ()),
    OVERLOADED: (_UNREADY, (*_BACKOFF, "Preference-Applied")),
}
"""Description and headers of each error status."""


class OpenAiErrorDetail(Outbound):
    """An error in OpenAI's format; `code` is one of llama-orch's codes."""

    message: str
    type: str
    param: str | None
    code: ErrorCode | Reason | Literal["model_not_found"]


class OpenAiError(Outbound):
    """The body of an error under OpenAI's API."""

    error: OpenAiErrorDetail


class AnthropicErrorDetail(Outbound):
    """An error in Anthropic's format; `details` has llama-orch's code as `error_code`."""

    type: str
    message: str
    details: dict[str, JsonValue]


class AnthropicError(Outbound):
    """The body of an error under Anthropic's API."""

    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str | None


class OllamaError(Outbound):
    """The body of an error under Ollama's API."""

    error: str


BODIES: dict[ErrorFormat, type[BaseModel]] = {
    "own": ErrorBody,
    "openai": OpenAiError,
    "anthropic": AnthropicError,
    "ollama": OllamaError,
}


def error_statuses(route: Route) -> list[int]:
    """Return the declared error statuses of a route and those that follow from what it takes."""
    implied = {500} if route.public else {401, 403, 500}
    implied |= {404} if route.variables else set()
    implied |= {400, 408, 413, 415} if route.body else set()
    implied |= {400} if any(parameter.place == "query" for parameter in route.parameters) else set()
    return sorted(implied.union(route.errors) - set(route.replies))


def error_components(route: Route) -> dict[int, str]:
    """Return the error statuses of a route, each with the name of its component."""
    shape = shape_of(route.plain_path)
    statuses = error_statuses(route)
    if shape == "anthropic":
        statuses = [OVERLOADED if status == 503 else status for status in statuses]
    return {status: f"{BODIES[shape].__name__.removesuffix('Body')}{status}" for status in statuses}


def error_reply(shape: ErrorFormat, status: int) -> Reply:
    """Return the error response with this status in the format `shape`."""
    description, headers = MEANINGS[status]
    if shape == "own":
        return json_reply(description, BODIES[shape], *headers)
    exact = ("Retry-After-Ms",) if set(_BACKOFF) <= set(headers) else ()
    return json_reply(description, BODIES[shape], *headers, *exact, "X-Should-Retry")
