"""From what pools report and what waits in the queue to the values that a plan is made of. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from llama_orch.contracts.pools import MemoryBudget, PoolState, PoolStatus, Residency
from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.residency.situation import Budget, Phase, Resident, Wait

PHASES = {
    PoolState.UNLOADED: Phase.UNLOADED,
    PoolState.PROVISIONING: Phase.PREPARING,
    PoolState.STARTING: Phase.LOADING,
    PoolState.READY: Phase.LOADED,
    PoolState.DRAINING: Phase.LOADED,
    PoolState.FAILED: Phase.FAILED,
}
"""Pools in other states cannot be loaded or unloaded."""


@dataclass(frozen=True)
class Usage:
    """What this queen remembers of a pool. Times on trio's clock; `keep_alive_s`, if `overridden`, is that of its last
    request that had one."""

    loaded_at: float = -inf
    loading_at: float = inf
    used_at: float = -inf
    served: bool = False
    overridden: bool = False
    keep_alive_s: float | None = None


def after_report(usage: Usage, phase: Phase, leases: int, released_at: float, now: float) -> Usage:
    """Return the usage of a pool that is in `phase` now; `released_at` is when its last task ended."""
    if phase is Phase.LOADING:
        return Usage(loading_at=min(usage.loading_at, now))
    if phase is not Phase.LOADED:
        return usage if phase is Phase.UNLOADING else Usage()
    if usage.loaded_at == -inf:
        usage = replace(usage, loaded_at=now, loading_at=inf)
    used_at = now if leases else max(usage.used_at, released_at)
    return replace(usage, used_at=used_at, served=usage.served or used_at >= usage.loaded_at)


def idle_times(usage: Usage, keep_alive_s: float | None, released_at: float, now: float) -> tuple[float, float | None]:
    """Return how long a loaded pool without tasks has been idle, and when it is unloaded, both in seconds from now."""
    idle_s = max(0.0, now - max(usage.loaded_at, usage.used_at, released_at))
    limit_s = usage.keep_alive_s if usage.overridden else keep_alive_s
    return idle_s, None if limit_s is None else max(0.0, limit_s - idle_s)


def phase_of(pool: PoolStatus, ordered: Phase | None) -> Phase | None:
    """Return the phase of a pool; `ordered` is LOADING or UNLOADING while it has not done what it was told.

    A pool whose engine is being replaced counts as LOADING, so that it is left alone.
    """
    if ordered is not None:
        return ordered
    if pool.reload and pool.reload.state.holds_pool:
        return Phase.LOADING
    if pool.state is PoolState.DRAINING and not pool.draining:
        return Phase.UNLOADING  # its engine is being stopped
    return PHASES.get(pool.state)


def resident(
    pool: PoolStatus, plan: Residency, machine: str, phase: Phase, usage: Usage, leases: int, wanted: bool
) -> Resident:
    """Return `pool` as a plan sees it."""
    return Resident(
        key=(pool.pool_id, pool.node_id or ""),
        machine=machine,
        phase=phase,
        need=plan.need_bytes,
        leases=leases,
        used_at=usage.used_at,
        loaded_at=usage.loaded_at,
        loading_at=usage.loading_at,
        slots=plan.slots_total,
        served=usage.served,
        keep_alive_s=usage.keep_alive_s if usage.overridden else plan.keep_alive_s,
        load_s=plan.load_s or 0.0,
        pinned=plan.pinned,
        group=plan.group,
        exclusive=plan.exclusive,
        closed=pool.draining,
        wanted=wanted,
    )


def budgets(memory: Mapping[str, Sequence[MemoryBudget]]) -> dict[str, dict[str, Budget]]:
    """Return the memory of each machine by device."""
    return {
        machine: {each.device: Budget(each.total_bytes, each.free_bytes) for each in devices}
        for machine, devices in memory.items()
    }


def pools_of(candidates: Iterable[Candidate]) -> frozenset[PoolKey]:
    return frozenset((each.pool_id, each.node_id or "") for each in candidates)


def merged(waits: Iterable[Wait]) -> list[Wait]:
    """Return the waits of equal pools as one each, the longest first."""
    since: dict[tuple[frozenset[PoolKey], bool], float] = {}
    for wait in waits:
        kind = wait.pools, wait.promised
        since[kind] = min(since.get(kind, inf), wait.since)
    return sorted((Wait(pools, at, promised) for (pools, promised), at in since.items()), key=lambda wait: wait.since)
