"""Loads and unloads that were decided, until the reports of their pools show the result."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import trio

from llama_orch.contracts.pools import PoolState, PoolStatus
from queen_rbee.metrics import UnloadCause
from queen_rbee.pools.candidates import Candidate, Demand
from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.residency.plan import room_is_needed
from queen_rbee.residency.situation import Phase, Situation
from queen_rbee.residency.views import pools_of
from queen_rbee.tasks.task import Task

TIMEOUT_S = 60.0
"""How long pool-managerd may take to report that it follows an order."""


@dataclass
class Order:
    """A load or unload. `sent_at` is when pool-managerd accepted it; `reason` is for events, and so is
    `correlation_id`, that of the request which a load is for. Of an unload, `cause` is for metrics, and `room_for` are
    the pools that need its memory.

    `phase` is what the pool counts as until its report shows the result.
    """

    phase: Phase
    reason: str
    cause: UnloadCause = "request"
    room_for: frozenset[PoolKey] = frozenset()
    correlation_id: str | None = None
    sending: bool = False
    sent_at: float | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def given(self) -> bool:
        """Whether pool-managerd knows of it, or may know."""
        return self.sending or self.sent_at is not None

    def followed(self, state: PoolState) -> bool:
        """Whether the pool's state shows the result."""
        if self.sent_at is None:
            return False
        if self.phase is Phase.LOADING:
            return state in (PoolState.READY, PoolState.FAILED, PoolState.DRAINING)
        return state in (PoolState.UNLOADED, PoolState.FAILED)

    def late(self, pool: PoolStatus | None, now: float) -> bool:
        """Whether the pool has not begun to do what it was told."""
        return self.sent_at is not None and now - self.sent_at >= TIMEOUT_S and not self._following(pool)

    def _following(self, pool: PoolStatus | None) -> bool:
        """Whether the pool does what it was told, however long that takes: engine-provisioner limits it."""
        if pool is None:
            return False
        if self.phase is Phase.LOADING:
            return pool.state in (PoolState.STARTING, PoolState.PROVISIONING)
        return pool.state is PoolState.DRAINING and not pool.draining


def needless_unloads(orders: Mapping[PoolKey, Order], situation: Situation) -> list[PoolKey]:
    """Return the unloads, not given yet, that make room for what nobody waits for any more."""
    return [
        key
        for key, order in orders.items()
        if order.room_for and not order.given and not room_is_needed(order.room_for, situation)
    ]


def cause_of(key: PoolKey, waiting: Iterable[Task], suitable: Callable[[Demand], Iterable[Candidate]]) -> str | None:
    """Return the correlation id of the oldest task of `waiting` that the pool could serve, None if there is none."""
    served = (task for task in waiting if key in pools_of(suitable(task.demand)))
    oldest = min(served, key=lambda task: task.measurements.submitted_at, default=None)
    return oldest.correlation_id if oldest else None
