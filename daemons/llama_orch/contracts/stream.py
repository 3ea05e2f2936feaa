"""The events of a task's stream, as clients read them: what stands behind `data:`, by the name behind `event:`."""

from pydantic import BaseModel, ConfigDict

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.errors import ErrorCode, Reason


class StartedEvent(Outbound):
    """The first event. `queue_position` is 0 for the task that runs next; the time is in milliseconds, and null while
    no pool that could serve the task is ready."""

    queue_position: int
    predicted_start_ms: int | None


class TokenEvent(Outbound):
    """A piece of the answer's text, and its number from 0."""

    t: str
    i: int


class MetricsEvent(Outbound):
    """Where the task stands: while it waits its position, likely start and chance to meet its deadline (0 to 1), then
    its pool, and of its session what is left. What is not known, or was never set, is left out."""

    queue_depth: int | None = None
    queue_position: int | None = None
    predicted_start_ms: int | None = None
    on_time_probability: float | None = None
    pool_id: str | None = None
    kv_warmth: bool | None = None
    tokens_budget_remaining: int | None = None
    time_budget_remaining_ms: int | None = None
    cost_budget_remaining: float | None = None


class NarrationEvent(Outbound):
    """What is being done, in words; for verbose readers only."""

    text: str


class OpenAiDocument(BaseModel):
    """JSON as the engine answered it, in OpenAI's format."""

    model_config = ConfigDict(extra="allow", defer_build=True)


class EndEvent(Outbound):
    """The answer is complete; nothing follows. Tokens of prompt and answer, and the time from the first token to here
    in milliseconds, under two names."""

    tokens_in: int
    tokens_out: int
    decode_time_ms: int
    decode_ms: int


class ErrorEvent(Outbound):
    """The task has failed; nothing follows."""

    code: ErrorCode
    message: str
    reason: Reason | None = None
    retriable: bool
    retry_after_ms: int | None = None
    engine: str | None = None


EVENTS: dict[str, type[BaseModel]] = {
    "started": StartedEvent,
    "metrics": MetricsEvent,
    "narration": NarrationEvent,
    "token": TokenEvent,
    "chunk": OpenAiDocument,
    "usage": OpenAiDocument,
    "result": OpenAiDocument,
    "end": EndEvent,
    "error": ErrorEvent,
}
"""Every event by its name. A task of a /v1 client has `chunk`, `usage` and `result` where one of /v2 has `token`."""
