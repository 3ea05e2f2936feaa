"""The one owner of drains: which pools take nothing new, since when, and when what still passes is ended.

In memory only: after a restart nothing is drained.
"""

import logging
import math
from dataclasses import dataclass

import trio

from llama_orch.contracts.operations import DrainStatus
from llama_orch.telemetry.events import POOL_DRAINING, POOL_RESUMED
from llama_orch.telemetry.records import emit
from pool_managerd.metrics import Metrics
from pool_managerd.registry import Registry
from pool_managerd.summary import Drained

GRACE_S = 1.0
"""What is still under way at a deadline is ended so much later: the queen ends her own tasks first, and says why."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """A pool whose requests have yet to end; `scope` is that of the task that waits for it."""

    since_s: float
    scope: trio.CancelScope


class Draining:
    """Drains and resumes pools and the node as a whole; `run` sees to their deadlines. `node` is its name, if any."""

    def __init__(self, registry: Registry, metrics: Metrics, node: str | None) -> None:
        self._registry = registry
        self._metrics = metrics
        self._name = node
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
        """The pool takes nothing new; an earlier deadline is replaced."""
        before = self._registry.drained
        self._become(Drained(before.node, before.pools | {pool_id}))
        self._watch(pool_id, deadline_ms, before)

    def resume(self, pool_id: str) -> None:
        """The pool takes requests again, unless the node as a whole is drained; its deadline is void."""
        drained = self._registry.drained
        self._become(Drained(drained.node, drained.pools - {pool_id}))

    def drain_node(self, deadline_ms: int | None) -> None:
        """No pool takes anything new, nor does one that comes later."""
        before = self._registry.drained
        self._become(Drained(True, before.pools))
        for pool in self._registry.pools:
            self._watch(pool.pool_id, deadline_ms, before)

    def resume_node(self) -> None:
        """All pools take requests again but those that are drained by themselves."""
        self._become(Drained(False, self._registry.drained.pools))

    def _become(self, after: Drained) -> None:
        """Have it so, and say what has changed for which pool."""
        before = self._registry.drained
        if after == before:
            return
        self._registry.set_drained(after)
        if after.node != before.node:
            log.info("the node %s", "is draining: its pools take nothing new" if after.node else "is drained no more")
        for pool_id in sorted({pool.pool_id for pool in self._registry.pools} | before.pools | after.pools):
            if pool_id in after and pool_id not in before:
                emit(POOL_DRAINING, pool_id=pool_id, node=self._name, leases=self._registry.leases.of_pool(pool_id))
            elif pool_id in before and pool_id not in after:
                self._forget(pool_id)
                emit(POOL_RESUMED, pool_id=pool_id, node=self._name)

    def _forget(self, pool_id: str) -> None:
        if watch := self._watches.pop(pool_id, None):
            watch.scope.cancel()

    def _watch(self, pool_id: str, deadline_ms: int | None, before: Drained) -> None:
        """Have a deadline seen to, and the end of the last request; nothing where that has come already."""
        earlier = self._watches.get(pool_id)
        if earlier is None and pool_id in before:
            return
        now_s = trio.current_time()
        watch = Watch(earlier.since_s if earlier else now_s, trio.CancelScope())
        self._forget(pool_id)
        self._watches[pool_id] = watch
        ends_s = math.inf if deadline_ms is None else now_s + deadline_ms / 1000 + GRACE_S
        assert self._nursery, "Draining.run has yet to be started"
        self._nursery.start_soon(self._until_empty, pool_id, watch, ends_s)

    async def _until_empty(self, pool_id: str, watch: Watch, ends_s: float) -> None:
        leases = self._registry.leases
        with watch.scope:
            with trio.move_on_at(ends_s):
                await leases.none_left(pool_id)
            leases.end(pool_id)
            await leases.none_left(pool_id)
        if self._watches.get(pool_id) is watch:
            del self._watches[pool_id]
            self._metrics.drained(pool_id, (trio.current_time() - watch.since_s) * 1000)
