"""What the queen is told of the pools: snapshots for heartbeats, and which changes of them cannot wait. Pure.

An engine may say anything of itself; what the contract has no room for is cut or left out here, so that one strange
engine does not silence a whole node.
"""

from collections.abc import Iterable, Mapping

from llama_orch.contracts.nodes import MAX_POOLS, PoolSnapshot
from llama_orch.contracts.pools import PoolStatus

TEXT_LIMIT = 256
WORDS_LIMIT = 4096
MODELS_MOST = 1024
SLOTS_MOST = 1 << 20
COUNT_MOST = 1 << 53

View = tuple[object, ...]
"""What placement depends on; two of them are compared and nothing else."""


def snapshot(pool: PoolStatus, node_id: str) -> PoolSnapshot:
    """`pool` as node `node_id` tells of it."""
    return PoolSnapshot(
        pool_id=pool.pool_id,
        node_id=node_id,
        state=pool.state,
        live=pool.live,
        ready=pool.ready,
        draining=pool.draining,
        slots_free=_within(pool.slots_free, SLOTS_MOST),
        slots_total=_within(pool.slots_total, SLOTS_MOST),
        active_leases=_within(pool.active_leases, COUNT_MOST),
        vram_free_bytes=_within(pool.vram_free_bytes, COUNT_MOST),
        vram_total_bytes=_within(pool.vram_total_bytes, COUNT_MOST),
        engine=pool.engine[:TEXT_LIMIT],
        engine_version=_cut(pool.engine_version),
        models_available=[model for model in pool.models_available if len(model) <= TEXT_LIMIT][:MODELS_MOST],
        model_digests=_digests(pool.model_digests),
        device_mask=_cut(pool.device_mask),
        ctx_max=None if pool.ctx_max is None else _within(pool.ctx_max, COUNT_MOST),
        workloads=pool.workloads,
        last_error=_cut(pool.last_error, WORDS_LIMIT),
    )


def snapshots(pools: Iterable[PoolStatus], node_id: str) -> list[PoolSnapshot]:
    """All pools that a heartbeat has room for."""
    return [snapshot(pool, node_id) for pool in pools][:MAX_POOLS]


def _within(value: int, most: int) -> int:
    return max(0, min(value, most))


def _cut(text: str | None, limit: int = TEXT_LIMIT) -> str | None:
    return None if text is None else text[:limit]


def _digests(digests: Mapping[str, str]) -> dict[str, str]:
    fitting = [pair for pair in digests.items() if max(map(len, pair)) <= TEXT_LIMIT]
    return dict(fitting[:MODELS_MOST])


def placement_view(pools: Iterable[PoolStatus], draining: bool) -> View:
    """What a change of is told at once: not free slots and GPU memory, which change with every task."""
    return (draining, *(_of_pool(pool) for pool in pools))


def _of_pool(pool: PoolStatus) -> View:
    models = tuple(pool.models_available), tuple(sorted(pool.model_digests.items()))
    standing = pool.state, pool.live, pool.ready, pool.draining
    workloads = tuple(pool.workloads) if pool.workloads else None
    return (pool.pool_id, *standing, pool.slots_total, pool.ctx_max, workloads, *models)
