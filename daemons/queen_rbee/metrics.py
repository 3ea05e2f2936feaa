"""queen-rbee's Prometheus metrics: names, labels and buckets, and the events that change them.

Each metric is declared once, in Metrics. Its name and labels are part of the public interface.
"""

from collections.abc import Mapping
from typing import Literal, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from llama_orch.contracts.pools import CircuitState
from llama_orch.contracts.tasks import TaskState
from llama_orch.telemetry.process_metrics import ProcessMetrics
from llama_orch.telemetry.tracing.metrics import SpanCounters
from queen_rbee.keys.key_metrics import KeyMetrics
from queen_rbee.node_metrics import RESULT_LABELS, NodeMetrics
from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.health_results import check_outcome
from queen_rbee.tasks.task import Task

FIRST_TOKEN_MS = (50, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000)
DECODE_MS = (250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12000)
WAIT_MS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000)
CHECK_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
REPLICA_LABELS = ("engine", "engine_version", "pool_id", "replica_id")
REPLICA_ID_INDEX = REPLICA_LABELS.index("replica_id")
TASK_LABELS = (*REPLICA_LABELS, "priority")
LATENCY_LABELS = ("engine", "engine_version", "pool_id", "priority")
NO_POOL = ""
"""The pool_id label if no pool is known, or if there is more than one."""
FINAL_STATES = tuple(state.value for state in TaskState if state.final)
AnyMetric = TypeVar("AnyMetric", bound=MetricWrapperBase)

UnloadCause = Literal["idle", "room", "request"]


class Metrics:
    """All metrics of one queen.

    A waiting task has the labels of the engine and pool that it can go to, if there is only one. Labels of unknown
    values are empty.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._depth_labels: set[tuple[str, str, str]] = set()
        self._children: dict[tuple[MetricWrapperBase, tuple[str, ...]], MetricWrapperBase] = {}
        self._series_by_pool: dict[str, set[tuple[MetricWrapperBase, tuple[str, ...]]]] = {}
        ProcessMetrics(registry=registry)
        registry.register(SpanCounters())
        self.nodes = NodeMetrics(registry)
        self.keys = KeyMetrics(registry)
        self.enqueued = Counter("tasks_enqueued", "Admitted tasks.", TASK_LABELS, registry=registry)
        self.started = Counter("tasks_started", "Tasks that got a slot.", TASK_LABELS, registry=registry)
        self.canceled = Counter("tasks_canceled", "Cancelled tasks.", (*REPLICA_LABELS, "reason"), registry=registry)
        self.rejected = Counter("tasks_rejected", "Refused tasks.", ("engine", "reason"), registry=registry)
        self.tokens_in = Counter("tokens_in", "Prompt tokens.", REPLICA_LABELS, registry=registry)
        self.tokens_out = Counter("tokens_out", "Generated tokens.", REPLICA_LABELS, registry=registry)
        self.tokens_cached = Counter(
            "tokens_cached", "Prompt tokens that the engine found in its KV cache.", REPLICA_LABELS, registry=registry
        )
        self.prefixes = Counter(
            "orchd_prefix_placements",
            "Prompts that several replicas could take, by whether one had their beginning and got them.",
            ("result",),
            registry=registry,
        )
        self.backpressure = Counter(
            "admission_backpressure_events",
            "Tasks refused or dropped because the queue was full.",
            ("engine", "policy"),
            registry=registry,
        )
        self.decisions = Counter(
            "placement_decisions", "Placement decisions.", ("outcome", "pinned", "fallback"), registry=registry
        )
        self.considered = Gauge(
            "placement_candidates_considered", "Replicas considered for the last placement.", registry=registry
        )
        self.depth = Gauge("queue_depth", "Waiting tasks.", LATENCY_LABELS, registry=registry)
        self.first_token = Histogram(
            "latency_first_token_ms",
            "Milliseconds from admission to the first token.",
            LATENCY_LABELS,
            buckets=FIRST_TOKEN_MS,
            registry=registry,
        )
        self.decode = Histogram(
            "latency_decode_ms",
            "Milliseconds from the first token to the end.",
            LATENCY_LABELS,
            buckets=DECODE_MS,
            registry=registry,
        )
        self.dispatched = Counter(
            "orchd_tasks_dispatched",
            "Tasks that were sent to a pool, by final state.",
            ("pool_id", "outcome"),
            registry=registry,
        )
        self.dispatch = Histogram(
            "orchd_dispatch_latency_ms",
            "Milliseconds from admission until the task got a slot.",
            ("pool_id",),
            buckets=WAIT_MS,
            registry=registry,
        )
        self.available = Gauge("orchd_pools_available", "Ready pools with this id.", ("pool_id",), registry=registry)
        self.checks = Counter(
            "orchd_pool_health_checks", "Health checks of pools.", ("pool_id", *RESULT_LABELS), registry=registry
        )
        self.check_times = Histogram(
            "orchd_pool_health_check_duration_ms",
            "Milliseconds that the queen's health checks took.",
            ("pool_id",),
            buckets=CHECK_MS,
            registry=registry,
        )
        self.circuits = Gauge(
            "orchd_circuit_open",
            "1 while a replica gets no tasks after failures, 0.5 while its health is checked.",
            ("pool_id", "replica_id"),
            registry=registry,
        )
        self.circuit_openings = Counter(
            "orchd_circuit_openings", "Circuits that opened.", ("pool_id",), registry=registry
        )
        self.loads = Counter(
            "orchd_model_loads", "Models that were loaded on demand.", ("pool_id", "outcome"), registry=registry
        )
        self.unloads = Counter(
            "orchd_model_unloads", "Models that were unloaded.", ("pool_id", "reason"), registry=registry
        )
        self.verifications = Counter(
            "catalog_verifications",
            "Verifications of model digests.",
            ("result", "reason", "engine"),
            registry=registry,
        )
        self.model_state = Gauge(
            "model_state", "1 for the current state of a model.", ("model_id", "state"), registry=registry
        )

    def circuit(self, key: tuple[str, str], state: CircuitState) -> None:
        """Set the circuit state of a replica. A closed circuit has no series."""
        if state == "closed":
            self.circuits.remove(*key)
        else:
            self.circuits.labels(*key).set(1 if state == "open" else 0.5)

    def circuit_opened(self, pool_id: str) -> None:
        """Count a circuit that has been open for longer than an engine takes to restart."""
        self._series(pool_id, self.circuit_openings, pool_id).inc()

    def loaded(self, pool_id: str, *, success: bool) -> None:
        """Count the end of a load that was ordered."""
        self._series(pool_id, self.loads, pool_id, "success" if success else "error").inc()

    def unloaded(self, pool_id: str, cause: UnloadCause) -> None:
        """Count an unload that was ordered and is done."""
        self._series(pool_id, self.unloads, pool_id, cause).inc()

    def checked(self, pool_id: str, reason: str, took_s: float | None = None) -> None:
        """Count a health check. `took_s` is its duration, unless the answer was delayed on purpose (a long poll)."""
        self._series(pool_id, self.checks, pool_id, check_outcome(reason), reason).inc()
        if took_s is not None:
            self._series(pool_id, self.check_times, pool_id).observe(1000 * took_s)

    def ready_pools(self, ready: Mapping[str, int]) -> None:
        """Set the number of ready pools by id, and remove the series of pools with any other id."""
        for pool_id, count in ready.items():
            self._series(pool_id, self.available, pool_id).set(count)
            for outcome in FINAL_STATES:  # so that rate() counts the first failure too
                self._series(pool_id, self.dispatched, pool_id, outcome)
        if ready:
            self.available.remove(NO_POOL)
        else:
            self.available.labels(NO_POOL).set(0)  # so that a sum over all pools is 0 instead of absent
        for removed in self._series_by_pool.keys() - ready.keys():
            for metric, labels in self._series_by_pool.pop(removed):
                self._remove(metric, labels)
            self._depth_labels = {key for key in self._depth_labels if key[1] != removed}

    def _series(self, pool_id: str, metric: AnyMetric, *labels: str) -> AnyMetric:
        """Return the series with these labels, and remember that it is the pool's.

        Searching all series for a pool's labels would take long with thousands of them.
        """
        key = metric, labels
        found = self._children.get(key)
        if found is None:
            self._series_by_pool.setdefault(pool_id, set()).add(key)
            found = self._children[key] = metric.labels(*labels)
        return cast(AnyMetric, found)

    def _remove(self, metric: MetricWrapperBase, labels: tuple[str, ...]) -> None:
        self._children.pop((metric, labels), None)
        metric.remove(*labels)

    def admitted(self, place: tuple[str, str], priority: str) -> None:
        """Count an admitted task; `place` is from `ReplicaIndex.shared_labels`."""
        engine, pool_id = place
        labels = (engine, "", pool_id, "", priority)
        (self._series(pool_id, self.enqueued, *labels) if pool_id else self.enqueued.labels(*labels)).inc()

    def depths(self, waiting: Mapping[tuple[str, str, str], int]) -> None:
        """Set the number of waiting tasks by engine, pool id and priority. Series that are not in it become 0."""
        for key in {*waiting, *self._depth_labels}:
            engine, pool_id, priority = key
            labels = (engine, "", pool_id, priority)
            series = self._series(pool_id, self.depth, *labels) if pool_id else self.depth.labels(*labels)
            series.set(waiting.get(key, 0))
            self._depth_labels.add(key)

    def forget_node(self, node_id: str) -> None:
        """Remove the series of a node; those of its pool ids stay, because other nodes may have the same pools."""
        self.nodes.forget(node_id)
        by_replica = {self.started, self.canceled, self.tokens_in, self.tokens_out, self.tokens_cached}
        for pool_series in self._series_by_pool.values():
            for metric, labels in list(pool_series):
                if metric in by_replica and labels[REPLICA_ID_INDEX] == node_id:
                    pool_series.discard((metric, labels))
                    self._remove(metric, labels)

    def placed(self, task: Task, target: Candidate, considered: int) -> None:
        """Count a task that got a slot of `target`."""
        self._series(target.pool_id, self.started, *_replica_labels(target), task.request.priority).inc()
        self.considered.set(considered)
        placement = task.request.placement
        fallback = bool(placement and placement.prefer_pools and target.pool_id not in placement.prefer_pools)
        self.decisions.labels("assigned", _boolean(_pinned(task)), _boolean(fallback)).inc()
        if task.measurements.started_at is not None:
            self._series(target.pool_id, self.dispatch, target.pool_id).observe(
                1000 * (task.measurements.started_at - task.measurements.submitted_at), _exemplar(task)
            )

    def not_placed(self, task: Task) -> None:
        """Count a task that starts to wait because no suitable slot is free."""
        self.decisions.labels("no_capacity", _boolean(_pinned(task)), _boolean(False)).inc()

    def ended(self, task: Task, target: Candidate) -> None:
        """Count a task that has released its slot on `target`, whatever its outcome."""
        labels, pool_id = _replica_labels(target), target.pool_id
        self._series(pool_id, self.dispatched, pool_id, task.state.value).inc()
        self._series(pool_id, self.tokens_in, *labels).inc(task.measurements.tokens_in)
        if task.measurements.tokens_cached:
            self._series(pool_id, self.tokens_cached, *labels).inc(task.measurements.tokens_cached)
        self._series(pool_id, self.tokens_out, *labels).inc(task.measurements.tokens_out)
        if task.state == "cancelled":
            self._series(pool_id, self.canceled, *labels, task.cancel_reason).inc()
        latency_labels = (*labels[:3], task.request.priority)
        if task.measurements.first_token_at is not None:
            self._series(pool_id, self.first_token, *latency_labels).observe(
                1000 * (task.measurements.first_token_at - task.measurements.submitted_at), _exemplar(task)
            )
            self._series(pool_id, self.decode, *latency_labels).observe(
                task.measurements.decode_ms or 0, _exemplar(task)
            )


def _replica_labels(target: Candidate) -> tuple[str, str, str, str]:
    return target.engine, target.engine_version or "", target.pool_id, target.replica_id


def _exemplar(task: Task) -> dict[str, str] | None:
    """Return the trace of a sampled task, which OpenMetrics shows beside the bucket that it fell into."""
    return task.trace.exemplar if task.trace else None


def _pinned(task: Task) -> bool:
    placement = task.request.placement
    return bool(placement and placement.mode == "pin")


def _boolean(value: bool) -> str:
    return str(value).lower()
