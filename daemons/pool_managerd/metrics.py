"""pool-managerd's metrics. Gauges are read from the pools at each scrape, so that those of removed pools vanish."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from llama_orch.telemetry.process_metrics import ProcessMetrics
from llama_orch.telemetry.tracing.metrics import SpanCounters
from pool_managerd.gpus.metrics import GpuCollector
from pool_managerd.gpus.totals import GpuTotals
from pool_managerd.pools.devices import devices_of
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.replica import HealthAnswer, Replica

HANDOFF_BUCKETS_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
DRAIN_BUCKETS_MS = (10, 100, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000)
NO_POOL = ""
"""The pool_id of files that could not be parsed; no pool has an empty id."""

GAUGES = {
    "pool_ready": ("Whether the pool is ready, 1 or 0", "ready"),
    "pool_slots_total": ("Slots of the pool's engines", "slots_total"),
    "pool_slots_free": ("Free slots of the pool's ready engines", "slots_free"),
    "pool_vram_total_bytes": ("Memory of the pool's GPUs", "vram_total_bytes"),
    "pool_vram_free_bytes": ("Free memory of the pool's GPUs", "vram_free_bytes"),
}
REPLICA_LABELS = ["engine", "engine_version", "pool_id", "replica_id"]
CHECK_LABELS = {
    HealthAnswer.READY: ("success", "ready"),
    HealthAnswer.LOADING: ("success", "loading"),
    HealthAnswer.SILENT: ("error", "timeout"),
    HealthAnswer.GONE: ("error", "unreachable"),
}
"""Labels outcome and reason of a health check. Loading counts as success: the engine behaves as expected."""
TAKEN, REJECTED = "taken", "rejected"


class Metrics:
    """The daemon's collector registry and its counters."""

    def __init__(self, pools: NodePools, gpu_totals: GpuTotals | None = None) -> None:
        self.collectors = CollectorRegistry()
        ProcessMetrics(registry=self.collectors)
        self.collectors.register(SpanCounters())
        self.collectors.register(_PoolGauges(pools))
        self.collectors.register(GpuCollector(pools, gpu_totals or GpuTotals()))
        labels = ["pool_id", "outcome"]
        self._handoffs = Counter(
            "pool_handoff_files_processed", "Handoff files taken and rejected", labels, registry=self.collectors
        )
        self._checks = Counter("pool_health_checks", "Looks at engines", [*labels, "reason"], registry=self.collectors)
        self._durations = Histogram(
            "pool_handoff_processing_duration_ms",
            "From the look at the directory to the engine being known, in milliseconds",
            ["pool_id"],
            buckets=HANDOFF_BUCKETS_MS,
            registry=self.collectors,
        )
        self._drains = Histogram(
            "drain_duration_ms",
            "From the drain of a pool to the end of its last request, in milliseconds",
            ["pool_id"],
            buckets=DRAIN_BUCKETS_MS,
            registry=self.collectors,
        )
        self._reload_times = Histogram(
            "reload_duration_ms",
            "From the start of a reload until the pool serves again, or was left as it was, in milliseconds",
            ["pool_id"],
            buckets=DRAIN_BUCKETS_MS,
            registry=self.collectors,
        )
        self._reload_successes = Counter(
            "reload_success", "Reloads that ended with the new engine", ["pool_id"], registry=self.collectors
        )
        self._reload_failures = Counter(
            "reload_failure", "Reloads that ended with the former engine", ["pool_id"], registry=self.collectors
        )
        self._pools: set[str] = set()

    def handoff_taken(self, pool_id: str, duration_ms: float) -> None:
        """Count a handoff file that was taken."""
        self._pools.add(pool_id)
        self._handoffs.labels(pool_id, TAKEN).inc()
        self._durations.labels(pool_id).observe(duration_ms)

    def handoff_rejected(self) -> None:
        """Count a file that is not a valid handoff."""
        self._handoffs.labels(NO_POOL, REJECTED).inc()

    def health_check(self, pool_id: str, answer: HealthAnswer) -> None:
        self._pools.add(pool_id)
        self._checks.labels(pool_id, *CHECK_LABELS[answer]).inc()

    def drained(self, pool_id: str, duration_ms: float) -> None:
        """Record a completed drain."""
        self._pools.add(pool_id)
        self._drains.labels(pool_id).observe(duration_ms)

    def reloaded(self, pool_id: str, duration_ms: float, *, success: bool) -> None:
        """Record a reload that has ended and was not called off."""
        self._pools.add(pool_id)
        self._reload_times.labels(pool_id).observe(duration_ms)
        (self._reload_successes if success else self._reload_failures).labels(pool_id).inc()

    def keep_only(self, pool_ids: set[str]) -> None:
        """Remove the series of all pools but these."""
        for removed in self._pools - pool_ids:
            reloads = (self._reload_times, self._reload_successes, self._reload_failures)
            for series in (self._handoffs, self._checks, self._durations, self._drains, *reloads):
                series.remove_by_labels({"pool_id": removed})
        self._pools &= pool_ids


class _PoolGauges(Collector):
    def __init__(self, pools: NodePools) -> None:
        self._node_pools = pools

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, (text, field) in GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=["pool_id"])
            for pool in self._node_pools.pools:
                family.add_metric([pool.pool_id], getattr(pool, field))
            yield family
        yield from self._devices()
        yield self._kv_caches()

    def _kv_caches(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "kv_cache_usage_ratio", "Part of the engine's KV cache in use, 0 to 1", labels=REPLICA_LABELS
        )
        for replica in self._node_pools.replicas:
            if replica.kv_usage is not None:
                family.add_metric(_replica_labels(replica), replica.kv_usage)
        return family

    def _devices(self) -> Iterator[GaugeMetricFamily]:
        labels = [*REPLICA_LABELS, "device"]
        used = GaugeMetricFamily("vram_used_bytes", "Memory in use on the engine's GPU", labels=labels)
        busy = GaugeMetricFamily("gpu_utilization", "Per cent of time the engine's GPU was busy", labels=labels)
        for replica in self._node_pools.replicas:
            values = _replica_labels(replica)
            for gpu in devices_of(replica.handoff.device_mask, self._node_pools.gpus):
                used.add_metric([*values, gpu.label], gpu.vram_used_bytes)
                if gpu.utilization is not None:
                    busy.add_metric([*values, gpu.label], gpu.utilization)
        yield used
        yield busy


def _replica_labels(replica: Replica) -> list[str]:
    return [replica.handoff.engine, replica.handoff.engine_version, *replica.key]
