"""The one owner of drains: which pools take nothing new, since when, and when what still passes is ended.

In memory only: after a restart nothing is drained.
"""

import logging
import math
from dataclasses import dataclass

import trio

from llama_orch.contracts.operations import DrainStatus
from llama_orch.telemetry.events.pools import POOL_DRAINING, POOL_RESUMED
from llama_orch.telemetry.records import emit
from pool_managerd.metrics import Metrics
from pool_managerd.pools.registry import Registry
from pool_managerd.pools.summary import Drained

GRACE_S = 1.0
"""What is still under way at a deadline is ended so much later: the queen ends her own tasks first, and says why."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """A pool whose requests have yet to end, by `ends_s`; `scope` is that of the task that waits for it."""

    since_s: float
    ends_s: float
    scope: trio.CancelScope


class Draining:
    """Drains and resumes pools and the node as a whole; `run` sees to their deadlines. `node` is its name, if any."""

    def __init__(self, registry: Registry, metrics: Metrics, node: str | None) -> None:
        self._registry = registry
        self._metrics = metrics
        self._name = node
        self._node_ends_s = math.inf
        self._pool_ends_s: dict[str, float] = {}
        self._watches: dict[str, Watch] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch over drains for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def knows(self, pool_id: str) -> bool:
        """Whether there is such a pool, or it is drained though it is gone."""
        return self._registry.pool(pool_id) is not None or pool_id in self._registry.drained.pools

    def status(self, *pool_ids: str) -> DrainStatus:
        """How the drain of these pools stands; of all pools where none is named."""
        registry = self._registry
        pools = pool_ids or tuple(pool.pool_id for pool in registry.pools)
        draining = all(pool_id in registry.drained for pool_id in pool_ids) if pool_ids else registry.drained.node
        return DrainStatus(pools=list(pools), draining=draining, active_leases=sum(map(registry.leases.of_pool, pools)))

    def drain(self, pool_id: str, deadline_ms: int | None) -> None:
        """The pool takes nothing new; an earlier deadline of its own is replaced."""
        before = self._registry.drained
        self._pool_ends_s[pool_id] = _ends_s(deadline_ms)
        self._become(Drained(before.node, before.pools | {pool_id}))

    def resume(self, pool_id: str) -> None:
        """The pool takes requests again, unless the node as a whole is drained; its deadline is void."""
        before = self._registry.drained
        self._pool_ends_s.pop(pool_id, None)
        self._become(Drained(before.node, before.pools - {pool_id}))

    def drain_node(self, deadline_ms: int | None) -> None:
        """No pool takes anything new, nor does one that comes later; an earlier deadline of the node is replaced."""
        self._node_ends_s = _ends_s(deadline_ms)
        self._become(Drained(True, self._registry.drained.pools))

    def resume_node(self) -> None:
        """All pools take requests again but those that are drained by themselves; the node's deadline is void."""
        self._node_ends_s = math.inf
        self._become(Drained(False, self._registry.drained.pools))

    def _become(self, after: Drained) -> None:
        """Have it so, say what has changed for which pool, and see to the deadlines as they are now."""
        before = self._registry.drained
        if after != before:
            self._registry.set_drained(after)
        if after.node != before.node:
            log.info("the node %s", "is draining: its pools take nothing new" if after.node else "is drained no more")
        for pool_id in sorted({pool.pool_id for pool in self._registry.pools} | before.pools | after.pools):
            if pool_id in after and pool_id not in before:
                emit(POOL_DRAINING, pool_id=pool_id, node=self._name, leases=self._registry.leases.of_pool(pool_id))
                self._watch(pool_id, trio.current_time())
            elif pool_id in before and pool_id not in after:
                self._forget(pool_id)
                emit(POOL_RESUMED, pool_id=pool_id, node=self._name)
            elif watch := self._watches.get(pool_id):
                self._watch(pool_id, watch.since_s)

    def _forget(self, pool_id: str) -> None:
        if watch := self._watches.pop(pool_id, None):
            watch.scope.cancel()

    def _watch(self, pool_id: str, since_s: float) -> None:
        """Have the end of the pool's last request seen to: by the deadline that comes first, of its own or the
        node's."""
        self._forget(pool_id)
        ends_s = min(self._node_ends_s, self._pool_ends_s.get(pool_id, math.inf))
        watch = self._watches[pool_id] = Watch(since_s, ends_s, trio.CancelScope())
        assert self._nursery, "Draining.run has yet to be started"
        self._nursery.start_soon(self._until_empty, pool_id, watch)

    async def _until_empty(self, pool_id: str, watch: Watch) -> None:
        leases = self._registry.leases
        with watch.scope:
            with trio.move_on_at(watch.ends_s):
                await leases.none_left(pool_id)
            leases.end(pool_id)
            await leases.none_left(pool_id)
        if self._watches.get(pool_id) is watch:
            del self._watches[pool_id]
            self._metrics.drained(pool_id, (trio.current_time() - watch.since_s) * 1000)


def _ends_s(deadline_ms: int | None) -> float:
    """When what is still under way is ended, on trio's clock."""
    return math.inf if deadline_ms is None else trio.current_time() + deadline_ms / 1000 + GRACE_S
