"""HOME_PROFILE: learns of engines from the handoff directory, in case no pool-managerd reports them.

The queen only reads the directory: pool-managerd moves invalid files and deletes consumed ones, and its reports take
precedence. An engine known only from here is checked before a task is placed on it.
"""

import logging
from dataclasses import dataclass, field

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from llama_orch.engines import is_loading
from llama_orch.engines.workloads import announced, union
from llama_orch.http.client.client import UpstreamError, fetch
from llama_orch.spool.reader import SpoolReader
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import ReplicaKey
from queen_rbee.pools.registry import PoolRegistry

SOURCE = "handoff files"
RANK = 1
HEALTH_LIMIT_S = 2.0
MAX_MISSES = 3
"""An engine is forgotten after this many consecutive failed health checks."""

log = logging.getLogger(__name__)


@dataclass
class AnnouncedEngine:
    """An engine that a handoff file announced; `misses` counts consecutive failed health checks."""

    handoff: Handoff
    ready: bool = False
    misses: int = 0


@dataclass
class HandoffSource:
    """Owns the engines that handoff files announced."""

    spool: SpoolReader
    registry: PoolRegistry
    metrics: Metrics
    bell: Bell
    interval_s: float
    engines: dict[ReplicaKey, AnnouncedEngine] = field(default_factory=dict)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Scan forever: when the bell rings, and every `interval_s` seconds."""
        while True:
            await self.scan()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await self.bell.wait(self.interval_s)

    async def scan(self) -> None:
        """Read new files, check the health of all engines, and update the registry."""
        for found in (await self.spool.look()).found:
            log.debug("handoff %s read: pool %s", found.identity.name, found.handoff.pool_id)
            self.engines[found.handoff.pool_id, found.handoff.replica_id] = AnnouncedEngine(found.handoff)
        async with trio.open_nursery() as nursery:
            for engine in self.engines.values():
                nursery.start_soon(self._check, engine)
        self.engines = {key: engine for key, engine in self.engines.items() if engine.misses < MAX_MISSES}
        pools = pools_of([(engine.handoff, engine.ready) for engine in self.engines.values()])
        self.registry.update(SOURCE, RANK, pools)

    async def _check(self, engine: AnnouncedEngine) -> None:
        pool_id, started_at = engine.handoff.pool_id, trio.current_time()
        try:
            status, _body = await fetch(f"{engine.handoff.url}/health", limit_s=HEALTH_LIMIT_S)
            engine.ready, engine.misses = status == 200, 0
            loading = is_loading(engine.handoff.engine, status)
            result = "ready" if engine.ready else "starting" if loading else "unready"
        except UpstreamError:
            engine.ready, engine.misses = False, engine.misses + 1
            result = "unreachable"
        self.metrics.checked(pool_id, result, trio.current_time() - started_at)


def pools_of(engines: list[tuple[Handoff, bool]]) -> list[PoolStatus]:
    """Return the pools of the announced engines; each engine comes with whether it is healthy."""
    pools: dict[str, list[tuple[Handoff, bool]]] = {}
    for handoff, ready in engines:
        pools.setdefault(handoff.pool_id, []).append((handoff, ready))
    return [_pool(pool_id, members) for pool_id, members in sorted(pools.items())]


def _pool(pool_id: str, members: list[tuple[Handoff, bool]]) -> PoolStatus:
    first = members[0][0]
    replicas = [_replica(handoff, ready) for handoff, ready in members]
    ready = any(replica.ready for replica in replicas)
    models = [handoff.model for handoff, _ready in members if handoff.model]
    return PoolStatus(
        pool_id=pool_id,
        state=PoolState.READY if ready else PoolState.STARTING,
        live=ready,
        ready=ready,
        draining=False,
        slots_total=sum(replica.slots_total for replica in replicas),
        slots_free=sum(replica.slots_free for replica in replicas),
        engine=first.engine,
        engine_version=first.engine_version,
        device_mask=first.device_mask,
        models_available=sorted({model.id for model in models}),
        model_digests={model.id: model.digest for model in models if model.digest},
        ctx_max=first.model.ctx_max if first.model else None,
        workloads=union(replica.workloads for replica in replicas),
        replicas=replicas,
    )


def _replica(handoff: Handoff, ready: bool) -> ReplicaStatus:
    slots = handoff.slots_total or 1
    workloads = announced(handoff)
    return ReplicaStatus(
        replica_id=handoff.replica_id,
        url=handoff.url,
        ready=ready,
        slots_total=slots,
        slots_free=slots if ready else 0,
        workloads=list(workloads) if workloads else None,
    )
