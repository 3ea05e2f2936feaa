"""The GPUs as GET /v2/gpus lists them."""

from collections.abc import Iterable
from dataclasses import asdict

from llama_orch.contracts.gpus import GpuPool, GpuProcessView, GpuView
from pool_managerd.gpus.totals import GpuTotals
from pool_managerd.gpus.xids import label
from pool_managerd.pools.devices import Gpu, Gpus, known_devices_of
from pool_managerd.pools.gpu_states import gpu_states
from pool_managerd.pools.replica import Replica


def gpu_views(gpus: Gpus, totals: GpuTotals, replicas: Iterable[Replica]) -> list[GpuView]:
    """Return all known GPUs and MIG instances, with the pools on each."""
    replicas = tuple(replicas)
    return [_view(gpu, gpus, totals, replicas, *state) for gpu, state in gpu_states(gpus)]


def _view(
    gpu: Gpu, gpus: Gpus, totals: GpuTotals, replicas: tuple[Replica, ...], state: str, reason: str | None
) -> GpuView:
    values = asdict(gpu)
    del values["energy_j"], values["processes"]
    pools = {
        replica.key[0]
        for replica in replicas
        if any(each.uuid == gpu.uuid for each in known_devices_of(replica.handoff.device_mask, gpus))
    }
    return GpuView(
        **values,
        state=state,
        state_reason=reason,
        vram_used_bytes=gpu.vram_used_bytes,
        energy_joules=totals.energy.gpus.get(gpu.uuid),
        processes=[GpuProcessView(pid=process.pid, used_bytes=process.used_bytes) for process in gpu.processes],
        faults=faults_of(gpu.uuid, totals),
        pools=[
            GpuPool(
                pool_id=pool_id,
                energy_joules=totals.energy.pools.get(pool_id, 0.0),
                joules_per_1000_tokens=totals.energy.per_1000_tokens(pool_id),
            )
            for pool_id in sorted(pools)
        ],
    )


def faults_of(uuid: str, totals: GpuTotals) -> dict[str, int]:
    """Return the counts of a GPU's faults by code; unknown codes together as `other`."""
    counts: dict[str, int] = {}
    for (device, code), count in totals.faults.total.items():
        if device == uuid:
            counts[label(code)] = counts.get(label(code), 0) + count
    return counts
