"""The pools of a node as placement sees them."""

from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from queen_rbee.fleet.nodes import Node


class PoolStatuses:
    """Owns the pool statuses of one node. Only those of pools that the latest report changed are built again."""

    def __init__(self) -> None:
        self._node_state: tuple[str, bool, bool] | None = None
        self._built: dict[str, tuple[PoolSnapshot, PoolStatus]] = {}

    def update(self, node: Node) -> list[PoolStatus]:
        """Return the status of each pool of `node`. Pools of an offline or draining node get no tasks."""
        node_state = node.registration.address, node.draining, node.offline
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
    ready = pool.ready and not node.offline
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
        state=PoolState.OFFLINE if node.offline else pool.state,
        live=pool.live and not node.offline,
        ready=ready,
        draining=pool.draining or node.draining,
        last_error="the node is offline" if node.offline else pool.last_error,
        detail=None if node.offline else pool.detail,
        replicas=[replica],
    )
