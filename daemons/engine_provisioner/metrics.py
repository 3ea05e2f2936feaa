"""engine-provisioner's metrics. Every series of a pool exists from the start, so that rates begin at 0."""

from collections import Counter as Count
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from llama_orch.contracts.pools import PoolState
from llama_orch.telemetry.process_metrics import ProcessMetrics
from llama_orch.telemetry.tracing.metrics import SpanCounters

DURATIONS_S = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
EXIT_CAUSES = ("ended", "killed", "oom", "vram", "unhealthy", "start_timeout")
"""Why an engine ended: by itself, by a signal, for lack of memory in the machine or on a GPU; or why it was stopped: it
did not answer its health check, or was not healthy in time."""


class Metrics:
    """The metrics of all pools, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessMetrics(registry=registry)
        registry.register(SpanCounters())
        by_pool = ["pool_id"]
        self._pools = Gauge("provisioner_pools", "Pools by state", ["state"], registry=registry)
        self._state = Gauge(
            "provisioner_pool_state", "1 for the pool's current state", ["pool_id", "state"], registry=registry
        )
        self.starts = Counter(
            "provisioner_engine_starts", "Engines started that became healthy", by_pool, registry=registry
        )
        self.adoptions = Counter(
            "provisioner_engine_adoptions", "Engines that were already running", by_pool, registry=registry
        )
        self.exits = Counter(
            "provisioner_engine_exits", "Engines that ended or were stopped", [*by_pool, "cause"], registry=registry
        )
        self.failures = Counter(
            "provisioner_failures", "Failed attempts to provision a pool", by_pool, registry=registry
        )
        self.durations = Histogram(
            "provisioner_provisioning_duration_seconds",
            "From the beginning of an attempt until the engine it started was ready",
            by_pool,
            buckets=DURATIONS_S,
            registry=registry,
        )
        self.downloaded = Counter(
            "provisioner_downloaded_bytes", "Bytes of engines and models downloaded", by_pool, registry=registry
        )

    def add_pool(self, pool_id: str) -> None:
        """Create all series of a pool."""
        for metric in (self.starts, self.adoptions, self.failures, self.durations, self.downloaded):
            metric.labels(pool_id)
        for cause in EXIT_CAUSES:
            self.exits.labels(pool_id, cause)

    def set_state(self, pool_id: str, state: PoolState, all_states: Iterable[PoolState]) -> None:
        """Record the state of a pool; `all_states` are the states of all pools, including this one."""
        for each in PoolState:
            self._state.labels(pool_id, each.value).set(each is state)
        self._count(all_states)

    def remove_pool(self, pool_id: str, all_states: Iterable[PoolState]) -> None:
        """Remove the series of a pool; `all_states` are the states of all others."""
        for metric in (self.starts, self.adoptions, self.failures, self.durations, self.downloaded):
            metric.remove(pool_id)
        for cause in EXIT_CAUSES:
            self.exits.remove(pool_id, cause)
        for each in PoolState:
            self._state.remove(pool_id, each.value)
        self._count(all_states)

    def _count(self, all_states: Iterable[PoolState]) -> None:
        counts = Count(all_states)
        for each in PoolState:
            self._pools.labels(each.value).set(counts[each])

    def add_downloaded(self, pool_id: str, count: int) -> None:
        """Count bytes downloaded for a pool."""
        self.downloaded.labels(pool_id).inc(count)
