"""Long-running operations: drains of pools and nodes, loads and unloads of pools."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from llama_orch.contracts.base import Inbound, Outbound

LONGEST_DRAIN_MS = 86_400_000


class DrainRequest(Inbound):
    """The body of POST …/drain. After `deadline_ms` running tasks are ended; without it they are not."""

    deadline_ms: Annotated[int, Field(ge=0, le=LONGEST_DRAIN_MS)] | None = None


class DrainStatus(Outbound):
    """A drain in pool-managerd: its pools, and the number of requests that its relay still handles."""

    pools: list[str]
    draining: bool
    active_leases: int


class OperationState(StrEnum):
    """The state of an operation. `cancelled`: by DELETE, or a drain that was ended by resume."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Operation(Outbound):
    """GET /v2/operations/{id}. `leases_left` of `leases_total` tasks still run there. `message` is its progress, then
    how it ended."""

    operation_id: str
    kind: str
    pool_id: str | None = None
    node_id: str | None = None
    state: OperationState
    leases_total: int
    leases_left: int
    started_at: datetime
    deadline_at: datetime | None = None
    ended_at: datetime | None = None
    message: str | None = None


class OperationList(Outbound):
    """GET /v2/operations, newest first."""

    operations: list[Operation]
    count: int
