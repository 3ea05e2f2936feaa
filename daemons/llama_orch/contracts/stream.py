"""The events of a task's stream, as clients read them: what stands behind `data:`, by the name behind `event:`."""

from pydantic import BaseModel, ConfigDict

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.errors import ErrorCode


class StartedEvent(Outbound):
    """The first event. `queue_position` is 0 for the task that runs next; the time is in milliseconds."""

    queue_position: int
    predicted_start_ms: int


class TokenEvent(Outbound):
    """A piece of the answer's text, and its number from 0."""

    t: str
    i: int


class MetricsEvent(Outbound):
    """Where the task stands; what is not known, or was never set, is left out."""

    queue_depth: int | None = None
    pool_id: str | None = None


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
