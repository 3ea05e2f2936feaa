"""The events of a task's SSE stream: the model of `data:` for each name in `event:`."""

from pydantic import BaseModel, ConfigDict

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.errors import ErrorCode, Reason
from llama_orch.contracts.tasks import Preparation


class StartedEvent(Outbound):
    """The first event. `queue_position` is 0 for the next task. `predicted_start_ms` is null if no suitable pool is
    ready and no load is expected to end at a known time."""

    queue_position: int
    predicted_start_ms: int | None


class TokenEvent(Outbound):
    """A chunk of the answer's text and its index from 0."""

    t: str
    i: int


class MetricsEvent(Outbound):
    """Progress of the task.

    While it waits: its position, predicted start, what must be done before, and the probability (0 to 1) of meeting its
    deadline. Then: its pool and the remaining budgets of its session. Unknown values and unset budgets are omitted.
    """

    queue_depth: int | None = None
    queue_position: int | None = None
    predicted_start_ms: int | None = None
    preparation: Preparation | None = None
    on_time_probability: float | None = None
    pool_id: str | None = None
    kv_warmth: bool | None = None
    tokens_budget_remaining: int | None = None
    time_budget_remaining_ms: int | None = None
    cost_budget_remaining: float | None = None


class NarrationEvent(Outbound):
    """A description of the current step, only in verbose streams."""

    text: str


class OpenAiDocument(BaseModel):
    """The engine's JSON in OpenAI's format."""

    model_config = ConfigDict(extra="allow", defer_build=True)


class EndEvent(Outbound):
    """The last event of a complete answer: tokens of prompt and answer, and the time since the first token.

    `decode_time_ms` and `decode_ms` are the same value.
    """

    tokens_in: int
    tokens_out: int
    decode_time_ms: int
    decode_ms: int


class ErrorEvent(Outbound):
    """The last event of a failed task."""

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
"""All events by name. A task from /v1 has `chunk`, `usage` and `result` instead of `token`."""
