"""What takes its time and can be asked after: the drains of pools and nodes."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from llama_orch.contracts.base import Inbound, Outbound

LONGEST_DRAIN_MS = 86_400_000


class DrainRequest(Inbound):
    """The body of POST …/drain. When `deadline_ms` have passed, what still runs is ended; without it, never."""

    deadline_ms: Annotated[int, Field(ge=0, le=LONGEST_DRAIN_MS)] | None = None


class DrainStatus(Outbound):
    """What pool-managerd says of a drain: the pools concerned, and the requests that still pass through its relay."""

    pools: list[str]
    draining: bool
    active_leases: int


class OperationState(StrEnum):
    """Where an operation is; `cancelled` is a drain that was undone by resume."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Operation(Outbound):
    """GET /v2/operations/{id}. `leases_left` of `leases_total` tasks still run on what is drained."""

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
