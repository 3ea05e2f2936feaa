"""Metrics of GPUs, read at each scrape. To add a gauge, add a row to GAUGES."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pool_managerd.gpus.monitor import UNKNOWN_GPU
from pool_managerd.gpus.totals import GpuTotals
from pool_managerd.gpus.views import faults_of
from pool_managerd.pools.devices import Gpu
from pool_managerd.pools.gpu_states import gpu_states
from pool_managerd.pools.node_pools import NodePools

LABELS = ["device", "uuid"]

GAUGES: dict[str, tuple[str, Callable[[Gpu], float | None]]] = {
    "gpu_memory_total_bytes": ("Memory of the GPU", lambda gpu: gpu.vram_total_bytes),
    "gpu_memory_used_bytes": ("Memory of the GPU in use, by anyone", lambda gpu: gpu.vram_used_bytes),
    "gpu_memory_free_bytes": ("Free memory of the GPU", lambda gpu: gpu.vram_free_bytes),
    "gpu_utilization_percent": ("Per cent of time the GPU was busy", lambda gpu: gpu.utilization),
    "gpu_temperature_celsius": ("Temperature of the GPU", lambda gpu: gpu.temperature_c),
    "gpu_power_watts": ("Power that the GPU draws", lambda gpu: gpu.power_w),
    "gpu_power_limit_watts": ("Power limit of the GPU", lambda gpu: gpu.power_limit_w),
}
"""Gauges of the GPUs that can be read. None: no series."""
STATES = {
    "gpu_fenced": ("Whether the GPU gets no work after a hardware fault, 1 or 0", ("fenced",)),
    "gpu_throttled": ("Whether the GPU is slowed down by heat or for lack of power, 1 or 0", ("throttled",)),
    "gpu_lost": ("Whether the GPU is lost or its driver does not answer, 1 or 0", ("lost", "unknown")),
}


class GpuCollector(Collector):
    """Gauges of the GPUs of `node_pools`, and counters of `totals`."""

    def __init__(self, node_pools: NodePools, totals: GpuTotals) -> None:
        self._node_pools = node_pools
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        gpus = self._node_pools.gpus
        for name, (text, value_of) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=LABELS)
            for gpu in gpus.devices:
                if (value := value_of(gpu)) is not None:
                    gauge.add_metric([gpu.label, gpu.uuid], value)
            yield gauge
        states = [(gpu, state) for gpu, (state, _reason) in gpu_states(gpus)]
        for name, (text, those) in STATES.items():
            gauge = GaugeMetricFamily(name, text, labels=LABELS)
            for gpu, state in states:
                gauge.add_metric([gpu.label, gpu.uuid], state in those)
            yield gauge
        yield from self._counters()

    def _counters(self) -> Iterator[Metric]:
        energy, known = self._totals.energy, {gpu.uuid: gpu.label for gpu in self._node_pools.gpus.known}
        joules = CounterMetricFamily("gpu_energy_joules", "Energy that the GPU has used", labels=LABELS)
        for uuid, used_j in energy.gpus.items():
            joules.add_metric([known.get(uuid, UNKNOWN_GPU), uuid], used_j)
        yield joules
        errors = CounterMetricFamily("xid_errors", "Errors that NVIDIA's driver has reported", labels=["device", "xid"])
        for uuid, device in {**known, UNKNOWN_GPU: UNKNOWN_GPU}.items():
            for code, count in faults_of(uuid, self._totals).items():
                errors.add_metric([device, code], count)
        yield errors
        pools = CounterMetricFamily("pool_energy_joules", "Energy that GPUs have used for the pool", labels=["pool_id"])
        for pool_id, used_j in energy.pools.items():
            pools.add_metric([pool_id], used_j)
        yield pools
        tokens = CounterMetricFamily(
            "pool_tokens_generated", "Tokens that the pool's engines on GPUs have generated", labels=["pool_id"]
        )
        for pool_id, count in energy.tokens.items():
            tokens.add_metric([pool_id], count)
        yield tokens
