"""The pools of a node as placement sees them."""

from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from queen_rbee.fleet.nodes import Node

WOKEN = (PoolState.UNLOADED, PoolState.READY)
"""The states of pools for which a node is woken."""


class PoolStatuses:
    """Owns the pool statuses of one node. Only those of pools that the latest report changed are built again."""

    def __init__(self) -> None:
        self._node_state: tuple[object, ...] | None = None
        self._built: dict[str, tuple[PoolSnapshot, PoolStatus]] = {}

    def update(self, node: Node) -> list[PoolStatus]:
        """Return the status of each pool of `node`. Pools of an offline, sleeping or draining node get no tasks."""
        node_state = node.registration.address, node.draining, node.offline, node.asleep
        known = self._built if node_state == self._node_state else {}
        statuses = []
        for pool in node.pools:
            snapshot, status = known.get(pool.pool_id, (None, None))
            statuses.append(status if status and snapshot == pool else pool_status(node, pool))
        self._node_state = node_state
        self._built = {pool.pool_id: (pool, status) for pool, status in zip(node.pools, statuses, strict=True)}
        return statuses


def pool_status(node: Node, pool: PoolSnapshot) -> PoolStatus:
    """Return a pool with the node's relay as its only replica."""
    away = node.offline or node.asleep
    ready = pool.ready and not away
    url = f"{node.registration.address}/v2/pools/{pool.pool_id}/engine"
    # model_construct, because validation would take most of a heartbeat's time and the heartbeat has passed it already
    replica = ReplicaStatus.model_construct(
        last_error=None,
        workloads=None,
        replica_id=node.node_id,
        url=url,
        ready=ready,
        slots_total=pool.slots_total,
        slots_free=pool.slots_free,
    )
    return PoolStatus.model_construct(
        pool_id=pool.pool_id,
        node_id=pool.node_id,
        slots_total=pool.slots_total,
        slots_free=pool.slots_free,
        active_leases=pool.active_leases,
        vram_total_bytes=pool.vram_total_bytes,
        vram_free_bytes=pool.vram_free_bytes,
        engine=pool.engine,
        engine_version=pool.engine_version,
        device_mask=pool.device_mask,
        models_available=pool.models_available,
        model_digests=pool.model_digests,
        ctx_max=pool.ctx_max,
        workloads=pool.workloads,
        circuit="closed",
        residency=pool.residency,
        reload=pool.reload,
        state=_state(node, pool),
        live=pool.live and not away,
        ready=ready,
        draining=pool.draining or node.draining,
        last_error=_error(node, pool),
        detail=None if away else pool.detail,
        replicas=[replica],
    )


def _state(node: Node, pool: PoolSnapshot) -> PoolState:
    if node.offline:
        return PoolState.OFFLINE
    return PoolState.ASLEEP if node.asleep and pool.state in WOKEN else pool.state


def _error(node: Node, pool: PoolSnapshot) -> str | None:
    if node.offline:
        return "the node is offline" if node.missed_at is None else "the node did not wake"
    return "the node is asleep" if node.asleep else pool.last_error
