"""The status of a pool, from its replicas, its provisioning report and its devices. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llama_orch.contracts.engines import DEFAULT_ENGINE
from llama_orch.contracts.pools import (
    POOLS_FILE,
    PoolState,
    PoolStatus,
    ProvisioningReport,
    ReplicaStatus,
    Residency,
)
from llama_orch.engines.workloads import union
from pool_managerd.pools.devices import Gpus, devices_of, fence_problem
from pool_managerd.pools.replica import Replica, workloads_of

Reports = Mapping[str, ProvisioningReport]
COMING_UP = (PoolState.PROVISIONING, PoolState.STARTING, PoolState.FAILED)
UNLOADING = (PoolState.DRAINING, PoolState.UNLOADED)
"""The states of a report whose pool has no engine any more, as wanted."""
BEST_FIRST = (PoolState.READY, PoolState.STARTING, PoolState.FAILED, PoolState.OFFLINE)


@dataclass(frozen=True)
class DrainState:
    """What is drained: the whole node, some pools by an operator, some because all their engines' GPUs are fenced."""

    node: bool = False
    pools: frozenset[str] = frozenset()
    fenced: frozenset[str] = frozenset()

    def __contains__(self, pool_id: str) -> bool:
        return self.node or pool_id in self.pools or pool_id in self.fenced


NOT_DRAINED = DrainState()


def pool_statuses(replicas: Iterable[Replica], reports: Reports, gpus: Gpus) -> tuple[PoolStatus, ...]:
    """Return the status of every pool that has a replica or a report, sorted by id."""
    by_pool: dict[str, list[Replica]] = {pool_id: [] for pool_id in reports}
    for replica in replicas:
        by_pool.setdefault(replica.handoff.pool_id, []).append(replica)
    return tuple(
        pool_status(pool_id, sorted(by_pool[pool_id], key=lambda replica: replica.key), reports.get(pool_id), gpus)
        for pool_id in sorted(by_pool)
    )


def pool_status(pool_id: str, replicas: list[Replica], report: ProvisioningReport | None, gpus: Gpus) -> PoolStatus:
    """Return the status of one pool. While no engine answers, its state is that of the report."""
    if not replicas:
        return _unannounced(pool_id, report, gpus)
    state = min((replica.state for replica in replicas), key=BEST_FIRST.index)
    errors = [replica.error for replica in replicas if replica.error]
    if report and report.state in COMING_UP and not any(replica.live for replica in replicas):
        state, errors = report.state, [*_errors(report), *errors]
    newest = max(replicas, key=lambda replica: replica.incarnation)
    ready = [replica for replica in replicas if replica.state is PoolState.READY]
    devices = {gpu.uuid: gpu for replica in replicas for gpu in devices_of(replica.handoff.device_mask, gpus)}
    return PoolStatus(
        pool_id=pool_id,
        state=state,
        live=any(replica.live for replica in replicas),
        ready=bool(ready),
        draining=False,
        slots_total=sum(replica.slots.total for replica in replicas),
        slots_free=sum(replica.slots.free for replica in ready),
        vram_total_bytes=sum(gpu.vram_total_bytes for gpu in devices.values()),
        vram_free_bytes=sum(gpu.vram_free_bytes for gpu in devices.values()),
        engine=newest.handoff.engine,
        engine_version=newest.handoff.engine_version,
        device_mask=newest.handoff.device_mask,
        models_available=list(dict.fromkeys(model for replica in replicas for model in models_of(replica))),
        model_digests=digests_of(replicas),
        ctx_max=min((ctx for replica in replicas if (ctx := ctx_of(replica))), default=None),
        workloads=union(map(workloads_of, replicas)),
        last_error=None if ready else next(iter(errors), None),
        residency=report.residency if report else None,
        reload=report.reload if report else None,
        replicas=[_replica_status(replica) for replica in replicas],
    )


def with_service_state(pool: PoolStatus, drained: DrainState, active_leases: int) -> PoolStatus:
    """Return `pool` with this daemon's own state: drained or not, and the leases of the relay."""
    draining = pool.pool_id in drained
    if not draining and not active_leases:
        return pool
    state = PoolState.DRAINING if draining and pool.state is PoolState.READY else pool.state
    return pool.model_copy(update={"draining": draining, "state": state, "active_leases": active_leases})


def fenced_pools(replicas: Iterable[Replica], gpus: Gpus) -> frozenset[str]:
    """Return the pools that have engines on fenced GPUs only."""
    replicas = tuple(replicas) if gpus.fences else ()
    fenced = {replica.key for replica in replicas if fence_problem(replica.handoff.device_mask, gpus)}
    serving = {replica.key[0] for replica in replicas if replica.key not in fenced}
    return frozenset(pool_id for pool_id, _replica_id in fenced if pool_id not in serving)


def _unannounced(pool_id: str, report: ProvisioningReport | None, gpus: Gpus) -> PoolStatus:
    """Return the status of a pool that has a report but no announced engine."""
    state = report.state if report and report.state in (*COMING_UP, *UNLOADING) else PoolState.STARTING
    residency = report.residency if report and report.residency else Residency(slots_total=1)
    model, known = residency.model, bool(report and report.residency)
    devices = devices_of(residency.device_mask, gpus)
    return PoolStatus(
        pool_id=pool_id,
        state=state,
        live=False,
        ready=False,
        draining=False,
        slots_total=residency.slots_total if known else 0,
        vram_total_bytes=sum(gpu.vram_total_bytes for gpu in devices),
        vram_free_bytes=sum(gpu.vram_free_bytes for gpu in devices),
        engine=report.engine if report else DEFAULT_ENGINE,
        device_mask=residency.device_mask,
        models_available=[model.id] if model else [],
        model_digests={model.id: model.digest} if model and model.digest else {},
        ctx_max=model.ctx_max if model else None,
        workloads=report.workloads if report else None,
        last_error=next(iter(_errors(report)), None) if report else None,
        detail=report.detail if report else None,
        residency=report.residency if report else None,
        reload=report.reload if report else None,
    )


def _errors(report: ProvisioningReport) -> list[str]:
    """Return why the pool has no announced engine, if the report tells."""
    if report.last_error:
        return [report.last_error]
    if report.state is PoolState.READY:
        return [f"the engine runs ({report.detail}) but has no handoff file; restart engine-provisioner"]
    if report.state in (PoolState.PROVISIONING, PoolState.STARTING, *UNLOADING) or not report.detail:
        return []
    return [report.detail]


def models_of(replica: Replica) -> tuple[str, ...]:
    """Return the ids of the models that a replica serves, by its handoff file or its own description."""
    if replica.handoff.model:
        return (replica.handoff.model.id,)
    return replica.details.models if replica.details else ()


def digests_of(replicas: Iterable[Replica]) -> dict[str, str]:
    """Return the digests of models by name, as handoff files give them; the newest engine wins."""
    by_age = sorted(replicas, key=lambda replica: replica.incarnation)
    models = [replica.handoff.model for replica in by_age if replica.handoff.model]
    return {model.id: model.digest for model in models if model.digest}


def ctx_of(replica: Replica) -> int | None:
    """Return the context of one slot in tokens, if known."""
    announced = replica.handoff.model.ctx_max if replica.handoff.model else None
    return announced or (replica.details.ctx_max if replica.details else None)


def _replica_status(replica: Replica) -> ReplicaStatus:
    return ReplicaStatus(
        replica_id=replica.handoff.replica_id,
        url=replica.handoff.url,
        ready=replica.state is PoolState.READY,
        slots_total=replica.slots.total,
        slots_free=replica.slots.free,
        last_error=replica.error,
        workloads=workloads_of(replica),
    )


def status_line(pools: Iterable[PoolStatus]) -> str:
    """Return a line for `systemctl status`: how many pools are in which state, and the reason of the first failure."""
    pools = tuple(pools)
    if not pools:
        return f"no pools yet; {POOLS_FILE} configures them"
    counts = {state: sum(pool.state is state for pool in pools) for state in PoolState}
    ready = counts.pop(PoolState.READY)
    parts = [f"{ready} pool{'' if ready == 1 else 's'} ready"]
    parts += [f"{count} {state.value}" for state, count in counts.items() if count]
    failed = next((pool for pool in pools if pool.state is PoolState.FAILED), None)
    return ", ".join(parts) + (f": {failed.pool_id}: {failed.last_error or 'no reason given'}" if failed else "")
