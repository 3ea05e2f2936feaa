"""engine-provisioner's metrics. Each pool has all of its series from the start, so that rates begin at 0."""

from collections import Counter as Count
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from llama_orch.contracts.pools import PoolState

DURATIONS_S = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
EXITS = ("ended", "killed", "oom", "unhealthy", "start_timeout")
"""Why an engine is no more: it ended by itself, by a signal, by the kernel for want of memory; or it was stopped since
it did not answer, or was not healthy in time."""


class Metrics:
    """What is counted, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        each = ["pool_id"]
        self._pools = Gauge("provisioner_pools", "Pools by their state", ["state"], registry=registry)
        self._state = Gauge(
            "provisioner_pool_state", "1 for the state a pool is in", ["pool_id", "state"], registry=registry
        )
        self.starts = Counter("provisioner_engine_starts", "Engines started and found healthy", each, registry=registry)
        self.adoptions = Counter(
            "provisioner_engine_adoptions", "Engines that were found running", each, registry=registry
        )
        self.exits = Counter(
            "provisioner_engine_exits", "Engines that ended or were given up", [*each, "cause"], registry=registry
        )
        self.failures = Counter("provisioner_failures", "Failed tries to have a pool", each, registry=registry)
        self.durations = Histogram(
            "provisioner_provisioning_duration_seconds",
            "From the begin of a try to the engine that it started being ready",
            each,
            buckets=DURATIONS_S,
            registry=registry,
        )
        self.downloaded = Counter(
            "provisioner_downloaded_bytes", "Bytes of engines and models fetched for a pool", each, registry=registry
        )

    def add(self, pool_id: str) -> None:
        """Show all series of a pool."""
        for metric in (self.starts, self.adoptions, self.failures, self.durations, self.downloaded):
            metric.labels(pool_id)
        for cause in EXITS:
            self.exits.labels(pool_id, cause)

    def show(self, pool_id: str, state: PoolState, all_states: Iterable[PoolState]) -> None:
        """The pool is in `state`; `all_states` are those of all pools, this one included."""
        for each in PoolState:
            self._state.labels(pool_id, each.value).set(each is state)
        counts = Count(all_states)
        for each in PoolState:
            self._pools.labels(each.value).set(counts[each])

    def fetched(self, pool_id: str, count: int) -> None:
        """So many bytes more have been downloaded for the pool."""
        self.downloaded.labels(pool_id).inc(count)
