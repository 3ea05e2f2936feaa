"""Drains of pools and of the node: since when, and by which deadline running requests are ended.

The one owner of drains. In memory only: after a restart nothing is drained but the pools of fenced GPUs.
"""

import logging
import math
from dataclasses import dataclass, replace

import trio

from llama_orch.contracts.operations import DrainStatus
from llama_orch.telemetry.events.pools import POOL_DRAINING, POOL_RESUMED
from llama_orch.telemetry.records import emit
from pool_managerd.metrics import Metrics
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.pool_status import DrainState

GRACE_S = 1.0
"""Requests are ended this long after the deadline, so that the queen ends its own tasks first, with a reason."""

FENCE_S = 30.0
"""How long requests on a fenced GPU may go on: the GPU may still answer, or hang for ever."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolDrain:
    """A pool with running requests. They are ended at `ends_s`; `scope` cancels the task that waits for them."""

    since_s: float
    ends_s: float
    scope: trio.CancelScope


class Draining:
    """Drains and resumes pools and the node; `run` enforces the deadlines. `node` is the node id, if there is one."""

    def __init__(self, node_pools: NodePools, metrics: Metrics, node: str | None) -> None:
        self._node_pools = node_pools
        self._metrics = metrics
        self._name = node
        self._node_ends_s = math.inf
        self._pool_ends_s: dict[str, float] = {}
        self._fence_ends_s: dict[str, float] = {}
        self._watches: dict[str, PoolDrain] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Enforce deadlines, forever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                changed = self._node_pools.fenced_changed
                self._apply_fences(self._node_pools.fenced)
                await changed.wait()

    def knows(self, pool_id: str) -> bool:
        """Whether the pool exists, or is drained although it no longer exists."""
        return self._node_pools.pool(pool_id) is not None or pool_id in self._node_pools.drained.pools

    def status(self, *pool_ids: str) -> DrainStatus:
        """Return the drain status of these pools; of all pools if none is named."""
        node_pools = self._node_pools
        pools = pool_ids or tuple(pool.pool_id for pool in node_pools.pools)
        draining = all(pool_id in node_pools.drained for pool_id in pool_ids) if pool_ids else node_pools.drained.node
        return DrainStatus(
            pools=list(pools), draining=draining, active_leases=sum(map(node_pools.leases.of_pool, pools))
        )

    def drain(self, pool_id: str, deadline_ms: int | None) -> None:
        """Stop new requests to the pool. Replaces an earlier deadline of the pool."""
        before = self._node_pools.drained
        self._pool_ends_s[pool_id] = _ends_s(deadline_ms)
        self._apply(replace(before, pools=before.pools | {pool_id}))

    def resume(self, pool_id: str) -> None:
        """Accept requests for the pool again, unless the node is drained. Its deadline is dropped."""
        before = self._node_pools.drained
        self._pool_ends_s.pop(pool_id, None)
        self._apply(replace(before, pools=before.pools - {pool_id}))

    def drain_node(self, deadline_ms: int | None) -> None:
        """Stop new requests to all pools, also to pools added later. Replaces an earlier deadline of the node."""
        self._node_ends_s = _ends_s(deadline_ms)
        self._apply(replace(self._node_pools.drained, node=True))

    def resume_node(self) -> None:
        """Accept requests again, except for pools that are drained themselves. The node's deadline is dropped."""
        self._node_ends_s = math.inf
        self._apply(replace(self._node_pools.drained, node=False))

    def _apply_fences(self, fenced: frozenset[str]) -> None:
        """Drain exactly these pools for their fenced GPUs, besides what an operator drains."""
        ends_s = trio.current_time() + FENCE_S
        self._fence_ends_s = {pool_id: self._fence_ends_s.get(pool_id, ends_s) for pool_id in fenced}
        if fenced != self._node_pools.drained.fenced:
            self._apply(replace(self._node_pools.drained, fenced=fenced))

    def _apply(self, after: DrainState) -> None:
        """Apply a new drain state: log what changed for which pool, and restart the deadlines."""
        before = self._node_pools.drained
        if after != before:
            self._node_pools.set_drained(after)
        if after.node != before.node:
            log.info(
                "the node is %s", "draining: its pools accept no new requests" if after.node else "no longer draining"
            )
        for pool_id in sorted(self._concerned(before, after)):
            if pool_id in after and pool_id not in before:
                emit(POOL_DRAINING, pool_id=pool_id, node=self._name, leases=self._node_pools.leases.of_pool(pool_id))
                self._watch(pool_id, trio.current_time())
            elif pool_id in before and pool_id not in after:
                self._forget(pool_id)
                emit(POOL_RESUMED, pool_id=pool_id, node=self._name)
            elif watch := self._watches.get(pool_id):
                self._watch(pool_id, watch.since_s)

    def _concerned(self, *states: DrainState) -> set[str]:
        named = (state.pools | state.fenced for state in states)
        return {pool.pool_id for pool in self._node_pools.pools}.union(*named)

    def _forget(self, pool_id: str) -> None:
        if watch := self._watches.pop(pool_id, None):
            watch.scope.cancel()

    def _watch(self, pool_id: str, since_s: float) -> None:
        """Wait for the pool's last request, up to the earliest of its own, its fence's and the node's deadline."""
        self._forget(pool_id)
        limits_s = (ends_s.get(pool_id, math.inf) for ends_s in (self._pool_ends_s, self._fence_ends_s))
        ends_s = min(self._node_ends_s, *limits_s)
        watch = self._watches[pool_id] = PoolDrain(since_s, ends_s, trio.CancelScope())
        assert self._nursery, "Draining.run has yet to be started"
        self._nursery.start_soon(self._until_empty, pool_id, watch)

    async def _until_empty(self, pool_id: str, watch: PoolDrain) -> None:
        leases = self._node_pools.leases
        with watch.scope:
            with trio.move_on_at(watch.ends_s):
                await leases.none_left(pool_id)
            leases.end(pool_id)
            await leases.none_left(pool_id)
        if self._watches.get(pool_id) is watch:
            del self._watches[pool_id]
            self._metrics.drained(pool_id, (trio.current_time() - watch.since_s) * 1000)


def _ends_s(deadline_ms: int | None) -> float:
    """Return when running requests are ended, on trio's clock."""
    return math.inf if deadline_ms is None else trio.current_time() + deadline_ms / 1000 + GRACE_S
