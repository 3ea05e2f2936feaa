"""The errors that operations answer with: each status once for each shape of body, as components to refer to."""

from typing import Literal

from pydantic import BaseModel, JsonValue

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.errors import ErrorBody, ErrorCode, Reason
from llama_orch.http.server.error_shapes import OVERLOADED, ErrorFormat, shape_of
from queen_rbee.api.openapi.headers import BUDGETS
from queen_rbee.api.openapi.operation import Answer, Operation, document

_BACKOFF = ("Retry-After", "X-Backoff-Ms")
_CONFLICT = (
    "INVALID_PARAMS: the id is taken. ADMISSION_REJECT: the session's limit is reached. DEADLINE_UNMET: it would end "
    "after its deadline. POOL_UNAVAILABLE: the pool or the model is not to be had. CANCELLED: somebody cancelled it."
)
_UNREADY = (
    "POOL_UNREADY: no pool is ready for it. REPLICA_EXHAUSTED: several replicas were tried, and each broke off. "
    "ADMISSION_REJECT: the queen is stopping. INTERNAL: she cannot store it."
)

MEANINGS: dict[int, tuple[str, tuple[str, ...]]] = {
    400: ("INVALID_PARAMS: a field is wrong, or nothing here can serve what is asked.", ()),
    401: ("MISSING_TOKEN, BAD_TOKEN: the daemon has a token, and the request none or another.", ("WWW-Authenticate",)),
    403: (
        "The daemon has no token, and: NON_LOOPBACK_WITHOUT_TOKEN: the request comes from another machine. "
        "FORBIDDEN_HOST: it names a host that is not this machine. FORBIDDEN_ORIGIN: a page of another site sent it.",
        (),
    ),
    404: ("NOT_FOUND: there is no such thing, or no longer. INVALID_PARAMS: the model is retired.", ()),
    408: ("INVALID_PARAMS: the body did not arrive in time.", ()),
    409: (_CONFLICT, (*_BACKOFF, *BUDGETS)),
    413: ("INVALID_PARAMS: the body is too long; the hint says what raises the limit, if anything does.", ()),
    415: ("INVALID_PARAMS: the body has another Content-Encoding than gzip.", ("Accept-Encoding",)),
    429: ("ADMISSION_REJECT, QUEUE_FULL_DROP_LRU: the queue is full.", _BACKOFF),
    500: ("INTERNAL: an error of the queen's own; her log says more.", ()),
    501: ("INTERNAL: the engine does not tell how many tokens a prompt has.", ()),
    502: ("WORKER_RESET: the engine broke off.", ()),
    503: (_UNREADY, _BACKOFF),
    504: ("DECODE_TIMEOUT, DEADLINE_UNMET: the engine stalls, or the deadline has passed.", ()),
    OVERLOADED: (_UNREADY, _BACKOFF),
}
"""What each status means, and the headers that it has, where waiting helps."""


class OpenAiErrorDetail(Outbound):
    """What went wrong, in OpenAI's words, with our own code."""

    message: str
    type: str
    param: str | None
    code: ErrorCode | Reason | Literal["model_not_found"]


class OpenAiError(Outbound):
    """An error as OpenAI's clients parse it."""

    error: OpenAiErrorDetail


class AnthropicErrorDetail(Outbound):
    """What went wrong, in Anthropic's words; `details` has our own code as `error_code`."""

    type: str
    message: str
    details: dict[str, JsonValue]


class AnthropicError(Outbound):
    """An error as Anthropic's clients parse it."""

    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str | None


BODIES: dict[ErrorFormat, type[BaseModel]] = {"own": ErrorBody, "openai": OpenAiError, "anthropic": AnthropicError}


def refusals(operation: Operation) -> dict[int, str]:
    """The statuses of an operation's errors, each with its component's name."""
    shape = shape_of(operation.path)
    statuses = operation.refusals
    if shape == "anthropic":
        statuses = [OVERLOADED if status == 503 else status for status in statuses]
    return {status: f"{BODIES[shape].__name__.removesuffix('Body')}{status}" for status in statuses}


def refusal(shape: ErrorFormat, status: int) -> Answer:
    """The answer of this status to clients of `shape`."""
    about, headers = MEANINGS[status]
    if shape == "own":
        return document(about, BODIES[shape], *headers)
    exact = ("Retry-After-Ms",) if set(_BACKOFF) <= set(headers) else ()
    return document(about, BODIES[shape], *headers, *exact, "X-Should-Retry")
