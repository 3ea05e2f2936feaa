"""Sessions as clients see and change them: metadata only, never content."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from llama_orch.contracts.base import Inbound, Outbound
from llama_orch.contracts.tasks import DAY_MS

Budget = Annotated[int, Field(ge=0, le=1_000_000_000_000)]


class SessionChange(Inbound):
    """The body of PUT /v2/sessions/{id}: limits of a session, from now on; what is left out stays as it is.

    A budget is for the whole life of the session: what its turns have used before counts too. `ttl_ms` counts from the
    last turn; the time budget is in milliseconds of engine time, the cost in the unit of the catalog's
    `cost_per_1k_tokens`.
    """

    ttl_ms: Annotated[int, Field(ge=1000, le=7 * DAY_MS)] | None = None
    max_turns: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    tokens_budget: Budget | None = None
    time_budget_ms: Budget | None = None
    cost_budget: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] | None = None


class SessionView(Outbound):
    """A session as GET /v2/sessions/{id} shows it. A budget that was never set is None: it does not bind.

    `kv_bytes` is None where the engine does not tell; `kv_warmth` is whether the last turn found its cache.
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
    """GET /v2/sessions: those that live, the most recently used first; `next` is the `before` of the following page."""

    sessions: list[SessionView]
    count: int
    next: str | None = None
