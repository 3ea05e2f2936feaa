"""HOME_PROFILE: learns of engines from the handoff directory itself, in case no pool-managerd tells of them.

The queen only looks on: bad files and taken ones are pool-managerd's to move and delete, and whatever pool-managerd
says of a pool is believed before this. An engine known from here is asked for its health before a task is placed there.
"""

import logging
from dataclasses import dataclass, field

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.engines import is_loading
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from llama_orch.engines.workloads import announced, union
from llama_orch.http.client.client import UpstreamError, fetch
from llama_orch.spool import SpoolReader
from queen_rbee.metrics import Metrics
from queen_rbee.pools.registry import Registry

SOURCE = "handoff files"
RANK = 1
HEALTH_LIMIT_S = 2.0
MISSES = 3

log = logging.getLogger(__name__)

Key = tuple[str, str]


@dataclass
class Watched:
    """An engine that was announced; `misses` counts failed health checks in a row."""

    handoff: Handoff
    ready: bool = False
    misses: int = 0


@dataclass
class HandoffSource:
    """Owns what the queen knows from handoff files."""

    intake: SpoolReader
    registry: Registry
    metrics: Metrics
    bell: Bell
    interval_s: float
    engines: dict[Key, Watched] = field(default_factory=dict)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look for ever: when the bell rings, and every `interval_s` seconds."""
        while True:
            await self.look()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await self.bell.wait(self.interval_s)

    async def look(self) -> None:
        """Take what is new, ask every engine for its health, and tell the registry."""
        for found in (await self.intake.look()).found:
            log.debug("handoff %s read: pool %s", found.identity.name, found.handoff.pool_id)
            self.engines[found.handoff.pool_id, found.handoff.replica_id] = Watched(found.handoff)
        async with trio.open_nursery() as nursery:
            for watched in self.engines.values():
                nursery.start_soon(self._check, watched)
        self.engines = {key: watched for key, watched in self.engines.items() if watched.misses < MISSES}
        self.registry.update(SOURCE, RANK, pools_of([(w.handoff, w.ready) for w in self.engines.values()]))

    async def _check(self, watched: Watched) -> None:
        pool_id, asked_at = watched.handoff.pool_id, trio.current_time()
        try:
            status, _body = await fetch(f"{watched.handoff.url}/health", limit_s=HEALTH_LIMIT_S)
            watched.ready, watched.misses = status == 200, 0
            loading = is_loading(watched.handoff.engine, status)
            found = "ready" if watched.ready else "starting" if loading else "unready"
        except UpstreamError:
            watched.ready, watched.misses = False, watched.misses + 1
            found = "unreachable"
        self.metrics.checked(pool_id, found, trio.current_time() - asked_at)


def pools_of(engines: list[tuple[Handoff, bool]]) -> list[PoolStatus]:
    """The pools that announced engines make up, each engine with whether it answers."""
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
