"""From what is said of a pool to its replicas as placement sees them. Pure."""

from llama_orch.contracts.pools import PoolStatus, ReplicaStatus
from queen_rbee.engines.passage import Endpoint
from queen_rbee.pools.candidates import Candidate


def absent(pool: PoolStatus) -> ReplicaStatus:
    """What stands for a pool that has no engine yet, or none left."""
    return ReplicaStatus(replica_id=pool.node_id or "none", url="", ready=False, slots_total=0, slots_free=0)


def candidate_of(
    pool: PoolStatus, replica: ReplicaStatus, refused: tuple[str, ...], endpoints: frozenset[Endpoint] | None
) -> Candidate:
    """`replica` of `pool`, without leases; `refused` are its models that are not what the catalog says."""
    return Candidate(
        pool_id=pool.pool_id,
        replica_id=replica.replica_id,
        node_id=pool.node_id,
        url=replica.url,
        state=pool.state,
        ready=replica.ready and pool.ready,
        draining=pool.draining,
        slots_total=replica.slots_total,
        leased=0,
        engine=pool.engine,
        engine_version=pool.engine_version,
        models=tuple(model for model in pool.models_available if model not in refused),
        withheld=refused,
        ctx_max=pool.ctx_max,
        device_mask=pool.device_mask,
        vram_free_bytes=pool.vram_free_bytes,
        endpoints=endpoints,
    )
