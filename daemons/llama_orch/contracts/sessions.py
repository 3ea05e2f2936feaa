"""Sessions: metadata only, never content."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from llama_orch.contracts.base import Inbound, Outbound
from llama_orch.contracts.tasks import DAY_MS

Budget = Annotated[int, Field(ge=0, le=1_000_000_000_000)]


class SessionChange(Inbound):
    """The body of PUT /v2/sessions/{id}: new limits of a session. Missing fields do not change.

    A budget applies to the whole session, including earlier turns. `ttl_ms` counts from the last turn. The time budget
    is in milliseconds of engine time, the cost budget in the unit of `cost_per_1k_tokens` in the catalog.
    """

    ttl_ms: Annotated[int, Field(ge=1000, le=7 * DAY_MS)] | None = None
    max_turns: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    tokens_budget: Budget | None = None
    time_budget_ms: Budget | None = None
    cost_budget: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] | None = None


class SessionView(Outbound):
    """The answer to GET /v2/sessions/{id}. A budget that is not set is null.

    `kv_bytes` is null if the engine does not report it. `kv_warmth` is whether the last turn hit the KV cache.
    """

    session_id: UUID
    ttl_ms_remaining: int
    turns: int
    turns_remaining: int
    kv_bytes: int | None = None
    kv_warmth: bool = False
    pool_id: str | None = None
    replica_id: str | None = None
    tokens_budget_remaining: int | None = None
    time_budget_remaining_ms: int | None = None
    cost_budget_remaining: float | None = None


class SessionList(Outbound):
    """GET /v2/sessions: live sessions, the most recently used first. `next` is the `before` of the next page."""

    sessions: list[SessionView]
    count: int
    next: str | None = None
