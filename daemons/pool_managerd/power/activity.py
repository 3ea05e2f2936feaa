"""What this machine does, and what keeps it awake. Pure functions."""

from collections.abc import Iterable

from llama_orch.contracts.node_operations import NodeOperation
from llama_orch.contracts.pools import PoolState, PoolStatus

LOADING = (PoolState.PROVISIONING, PoolState.STARTING)
NOT_LOADED = (PoolState.UNLOADED, PoolState.FAILED, PoolState.OFFLINE, PoolState.UNINITIALIZED)


def work(pools: Iterable[PoolStatus], operations: Iterable[NodeOperation]) -> str | None:
    """Return the work that a suspension would interrupt: requests, loads, reloads, downloads and builds; None if none.

    Engines that the queen reaches without the relay are busy while they have fewer free slots than slots.
    """
    for pool in pools:
        if pool.active_leases or any(each.ready and each.slots_free < each.slots_total for each in pool.replicas):
            return f"pool {pool.pool_id} has requests"
        if pool.state in LOADING:
            return f"pool {pool.pool_id} is being loaded"
        if pool.reload and not pool.reload.state.ended:
            return f"pool {pool.pool_id} is being reloaded"
    return next((f"{each.kind} of {each.subject}" for each in operations if not each.state.ended), None)


def hold(pools: Iterable[PoolStatus], *, node_drained: bool) -> str | None:
    """Return what keeps an idle machine awake: a drain, or a model that is still loaded. None if nothing does.

    Suspending with a loaded model is not safe: GPU memory survives only with certain options of the driver.
    """
    if node_drained:
        return "the node is drained"
    for pool in pools:
        if pool.draining:
            return f"pool {pool.pool_id} is drained"
        if pool.residency and pool.state not in NOT_LOADED:
            return f"pool {pool.pool_id} is loaded"
    return None
