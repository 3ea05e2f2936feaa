"""Pool snapshots for heartbeats, and which changes are sent at once. Pure.

Values reported by engines that exceed the contract's bounds are cut or left out, so that one odd engine does not make
the queen reject the whole heartbeat.
"""

from collections.abc import Iterable, Mapping

from llama_orch.contracts.nodes import MAX_GPUS, MAX_POOLS, GpuSummary, PoolSnapshot
from llama_orch.contracts.pools import PoolStatus
from pool_managerd.pools.devices import Gpus
from pool_managerd.pools.gpu_states import gpu_states

TEXT_LIMIT = 256
ERROR_LIMIT = 4096
MODELS_MAX = 1024
SLOTS_MAX = 1 << 20
COUNT_MAX = 1 << 53

PlacementView = tuple[object, ...]
"""The values that placement depends on; only compared for equality."""


def snapshot(pool: PoolStatus, node_id: str) -> PoolSnapshot:
    return PoolSnapshot(
        pool_id=pool.pool_id,
        node_id=node_id,
        state=pool.state,
        live=pool.live,
        ready=pool.ready,
        draining=pool.draining,
        slots_free=_bounded(pool.slots_free, SLOTS_MAX),
        slots_total=_bounded(pool.slots_total, SLOTS_MAX),
        active_leases=_bounded(pool.active_leases, COUNT_MAX),
        vram_free_bytes=_bounded(pool.vram_free_bytes, COUNT_MAX),
        vram_total_bytes=_bounded(pool.vram_total_bytes, COUNT_MAX),
        engine=pool.engine[:TEXT_LIMIT],
        engine_version=_cut(pool.engine_version),
        models_available=[model for model in pool.models_available if len(model) <= TEXT_LIMIT][:MODELS_MAX],
        model_digests=_digests(pool.model_digests),
        device_mask=_cut(pool.device_mask),
        ctx_max=None if pool.ctx_max is None else _bounded(pool.ctx_max, COUNT_MAX),
        workloads=pool.workloads,
        last_error=_cut(pool.last_error, ERROR_LIMIT),
        detail=_cut(pool.detail, ERROR_LIMIT),
        residency=pool.residency,
        reload=pool.reload,
    )


def snapshots(pools: Iterable[PoolStatus], node_id: str) -> list[PoolSnapshot]:
    """Return snapshots of the first MAX_POOLS pools; a heartbeat has no room for more."""
    return [snapshot(pool, node_id) for pool in pools][:MAX_POOLS]


def gpu_summaries(gpus: Gpus) -> list[GpuSummary]:
    """Return the states of the first MAX_GPUS GPUs, without MIG instances."""
    whole = [(gpu, state) for gpu, state in gpu_states(gpus) if gpu.mig_index is None]
    return [
        GpuSummary(
            device_id=_bounded(gpu.index, 4096),
            uuid=gpu.uuid[:TEXT_LIMIT],
            state=state,
            reason=_cut(reason, ERROR_LIMIT),
            vram_total_bytes=_bounded(gpu.vram_total_bytes, COUNT_MAX),
            vram_free_bytes=_bounded(gpu.vram_free_bytes, COUNT_MAX),
            utilization=None if gpu.utilization is None else _bounded(gpu.utilization, 100),
            temperature_c=gpu.temperature_c if gpu.temperature_c in range(-273, 1001) else None,
            power_w=gpu.power_w if gpu.power_w is not None and 0 <= gpu.power_w <= 1_000_000 else None,
        )
        for gpu, (state, reason) in whole[:MAX_GPUS]
    ]


def _bounded(value: int, largest: int) -> int:
    return max(0, min(value, largest))


def _cut(text: str | None, limit: int = TEXT_LIMIT) -> str | None:
    return None if text is None else text[:limit]


def _digests(digests: Mapping[str, str]) -> dict[str, str]:
    fitting = [pair for pair in digests.items() if max(map(len, pair)) <= TEXT_LIMIT]
    return dict(fitting[:MODELS_MAX])


def placement_view(pools: Iterable[PoolStatus], draining: bool, memory_readings: int = 0) -> PlacementView:
    """Return the values whose change triggers an early heartbeat.

    Free slots and GPU memory are not among them: they change with every task. `memory_readings` counts the readings of
    memory after a pool was loaded or unloaded.
    """
    return (draining, memory_readings, *(_pool_view(pool) for pool in pools))


def _pool_view(pool: PoolStatus) -> PlacementView:
    models = tuple(pool.models_available), tuple(sorted(pool.model_digests.items()))
    state = pool.state, pool.live, pool.ready, pool.draining
    workloads = tuple(pool.workloads) if pool.workloads else None
    return (pool.pool_id, *state, pool.slots_total, pool.ctx_max, workloads, pool.residency, pool.reload, *models)
