"""pool-managerd's metrics. Gauges are read from the registry at each scrape, so that those of gone pools vanish."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pool_managerd.pools.devices import devices_of
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.replica import HealthAnswer, Replica

DURATIONS_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
DRAINS_MS = (10, 100, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000)
NO_POOL = ""
"""The pool_id of files that could not be understood; no pool can be named so."""

GAUGES = {
    "pool_ready": ("Whether the pool is ready, 1 or 0", "ready"),
    "pool_slots_total": ("Slots of the pool's engines", "slots_total"),
    "pool_slots_free": ("Free slots of the pool's ready engines", "slots_free"),
    "pool_vram_total_bytes": ("Memory of the pool's GPUs", "vram_total_bytes"),
    "pool_vram_free_bytes": ("Free memory of the pool's GPUs", "vram_free_bytes"),
}
PLACE = ["engine", "engine_version", "pool_id", "replica_id"]
RESULTS = {
    HealthAnswer.READY: ("success", "ready"),
    HealthAnswer.LOADING: ("success", "loading"),
    HealthAnswer.SILENT: ("error", "timeout"),
    HealthAnswer.GONE: ("error", "unreachable"),
}
"""Outcome and reason of a health check: an engine that loads does what it is meant to."""
TAKEN, REJECTED = "taken", "rejected"


class Metrics:
    """The daemon's own collector registry and what is counted in it."""

    def __init__(self, pools: NodePools) -> None:
        self.collectors = CollectorRegistry()
        ProcessCollector(registry=self.collectors)
        self.collectors.register(_PoolGauges(pools))
        labels = ["pool_id", "outcome"]
        self._handoffs = Counter(
            "pool_handoff_files_processed", "Handoff files taken and rejected", labels, registry=self.collectors
        )
        self._checks = Counter("pool_health_checks", "Looks at engines", [*labels, "reason"], registry=self.collectors)
        self._durations = Histogram(
            "pool_handoff_processing_duration_ms",
            "From the look at the directory to the engine being known, in milliseconds",
            ["pool_id"],
            buckets=DURATIONS_MS,
            registry=self.collectors,
        )
        self._drains = Histogram(
            "drain_duration_ms",
            "From the drain of a pool to the end of its last request, in milliseconds",
            ["pool_id"],
            buckets=DRAINS_MS,
            registry=self.collectors,
        )
        self._pools: set[str] = set()

    def handoff_taken(self, pool_id: str, duration_ms: float) -> None:
        """Count a handoff that was taken."""
        self._pools.add(pool_id)
        self._handoffs.labels(pool_id, TAKEN).inc()
        self._durations.labels(pool_id).observe(duration_ms)

    def handoff_rejected(self) -> None:
        """Count a file that was no handoff."""
        self._handoffs.labels(NO_POOL, REJECTED).inc()

    def health_check(self, pool_id: str, answer: HealthAnswer) -> None:
        """Count a look at an engine."""
        self._pools.add(pool_id)
        self._checks.labels(pool_id, *RESULTS[answer]).inc()

    def drained(self, pool_id: str, duration_ms: float) -> None:
        """Take note of a drain that is done."""
        self._pools.add(pool_id)
        self._drains.labels(pool_id).observe(duration_ms)

    def keep_only(self, pool_ids: set[str]) -> None:
        """Remove the series of all other pools."""
        for gone in self._pools - pool_ids:
            for series in (self._handoffs, self._checks, self._durations, self._drains):
                series.remove_by_labels({"pool_id": gone})
        self._pools &= pool_ids


class _PoolGauges(Collector):
    """What the registry says now."""

    def __init__(self, pools: NodePools) -> None:
        self._registry = pools

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges of all pools."""
        for name, (text, field) in GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=["pool_id"])
            for pool in self._registry.pools:
                family.add_metric([pool.pool_id], getattr(pool, field))
            yield family
        yield from self._devices()
        yield self._caches()

    def _caches(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily("kv_cache_usage_ratio", "Part of the engine's KV cache in use, 0 to 1", labels=PLACE)
        for replica in self._registry.replicas:
            if replica.kv_usage is not None:
                family.add_metric(_place(replica), replica.kv_usage)
        return family

    def _devices(self) -> Iterator[GaugeMetricFamily]:
        labels = [*PLACE, "device"]
        used = GaugeMetricFamily("vram_used_bytes", "Memory in use on the engine's GPU", labels=labels)
        busy = GaugeMetricFamily("gpu_utilization", "Per cent of time the engine's GPU was busy", labels=labels)
        for replica in self._registry.replicas:
            names = _place(replica)
            for gpu in devices_of(replica.handoff.device_mask, self._registry.gpus):
                used.add_metric([*names, str(gpu.index)], gpu.vram_total_bytes - gpu.vram_free_bytes)
                if gpu.utilization is not None:
                    busy.add_metric([*names, str(gpu.index)], gpu.utilization)
        yield used
        yield busy


def _place(replica: Replica) -> list[str]:
    return [replica.handoff.engine, replica.handoff.engine_version, *replica.key]
