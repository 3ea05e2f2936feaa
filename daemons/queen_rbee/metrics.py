"""queen-rbee's Prometheus series, with the names, labels and buckets that CONTRACT promises."""

from collections.abc import Mapping
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector

from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.contracts.pools import CircuitState, PoolStatus
from queen_rbee.pools.candidates import Candidate
from queen_rbee.tasks.task import Task

FIRST_TOKEN_MS = (50, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000)
DECODE_MS = (250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12000)
CHECK_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
PLACE = ("engine", "engine_version", "pool_id", "replica_id")
REPLICA = PLACE.index("replica_id")
TASK = (*PLACE, "priority")
SPAN = ("engine", "engine_version", "pool_id", "priority")
NO_POOL = ""
"""As a pool_id where no pool is known, or more than one."""
S = TypeVar("S", bound=MetricWrapperBase)

FAULTS = frozenset({"failed", "offline", "unready", "unreachable"})
"""The results of health checks that count as errors: what loads or drains does what it is meant to."""
HeartbeatError = Literal["unknown", "refused"]
ERROR_SHOWN_S = 300.0
"""So long after the last one, the count of a node's refused heartbeats is no more shown: Prometheus rules that look for
a count that stands still mean a node that has fallen silent."""


def outcome(reason: str) -> str:
    """Of a health check: `success` or `error`."""
    return "error" if reason in FAULTS else "success"


def check_result(pool: PoolStatus | PoolSnapshot) -> str:
    """The result of a health check of a pool that its own machine reports."""
    if pool.ready:
        return "ready"
    if pool.draining:
        return "draining"
    return "unready" if pool.state == "ready" else pool.state.value


class Metrics:
    """All series of one queen. A task that waits has the place that it could go to, as far as there is only one; the
    labels of what is not known are empty."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._deep: set[tuple[str, str, str]] = set()
        self._refused_at: dict[tuple[str, HeartbeatError], float] = {}
        self._series: dict[str, set[tuple[MetricWrapperBase, tuple[str, ...]]]] = {}
        ProcessCollector(registry=registry)
        self.enqueued = Counter("tasks_enqueued", "Tasks admitted.", TASK, registry=registry)
        self.started = Counter("tasks_started", "Tasks that got a slot.", TASK, registry=registry)
        self.canceled = Counter("tasks_canceled", "Tasks cancelled.", (*PLACE, "reason"), registry=registry)
        self.rejected = Counter("tasks_rejected", "Tasks refused.", ("engine", "reason"), registry=registry)
        self.tokens_in = Counter("tokens_in", "Prompt tokens.", PLACE, registry=registry)
        self.tokens_out = Counter("tokens_out", "Answer tokens.", PLACE, registry=registry)
        self.backpressure = Counter(
            "admission_backpressure_events", "Full-queue decisions.", ("engine", "policy"), registry=registry
        )
        self.decisions = Counter(
            "placement_decisions", "Placement decisions.", ("outcome", "pinned", "fallback"), registry=registry
        )
        self.considered = Gauge("placement_candidates_considered", "Replicas looked at last.", registry=registry)
        self.depth = Gauge(
            "queue_depth", "Tasks that wait.", ("engine", "engine_version", "pool_id", "priority"), registry=registry
        )
        self.first_token = Histogram(
            "latency_first_token_ms", "Admission to first token.", SPAN, buckets=FIRST_TOKEN_MS, registry=registry
        )
        self.decode = Histogram("latency_decode_ms", "First token to end.", SPAN, buckets=DECODE_MS, registry=registry)
        self.dispatched = Counter(
            "orchd_tasks_dispatched", "Tasks sent to a pool.", ("pool_id", "outcome"), registry=registry
        )
        self.dispatch = Histogram("orchd_dispatch_latency_ms", "Wait for a slot.", ("pool_id",), registry=registry)
        self.available = Gauge("orchd_pools_available", "Ready pools of that id.", ("pool_id",), registry=registry)
        self.checks = Counter(
            "orchd_pool_health_checks", "Results of health checks.", ("pool_id", "outcome", "reason"), registry=registry
        )
        self.check_times = Histogram(
            "orchd_pool_health_check_duration_ms",
            "From the queen's question to the answer.",
            ("pool_id",),
            buckets=CHECK_MS,
            registry=registry,
        )
        self.circuits = Gauge(
            "orchd_circuit_open",
            "1 while nothing is sent to a replica after failures, 0.5 while its health is checked.",
            ("pool_id", "replica_id"),
            registry=registry,
        )
        self.circuit_openings = Counter(
            "orchd_circuit_openings", "Circuits that opened.", ("pool_id",), registry=registry
        )
        self.nodes_online = Gauge("orchd_nodes_online", "Nodes that are heard.", registry=registry)
        ended = ("outcome", "reason")
        self.registrations = Counter("orchd_node_registrations", "Registrations.", ended, registry=registry)
        self.heartbeats = Counter("orchd_node_heartbeats", "Heartbeats.", ("node_id", *ended), registry=registry)
        self.deregistrations = Counter("orchd_node_deregistrations", "Nodes that left.", ended, registry=registry)
        self.verifications = Counter(
            "catalog_verifications", "Checks of models' digests.", ("result", "reason", "engine"), registry=registry
        )
        self.model_state = Gauge("model_state", "1 for the state of a model.", ("model_id", "state"), registry=registry)

    def circuit(self, key: tuple[str, str], state: CircuitState) -> None:
        """The circuit of the replica `key` has changed; a closed one has no series."""
        if state == "closed":
            self.circuits.remove(*key)
        else:
            self.circuits.labels(*key).set(1 if state == "open" else 0.5)

    def circuit_opened(self, pool_id: str) -> None:
        """A circuit has opened, for longer than an engine's restart takes."""
        self._of(pool_id, self.circuit_openings, pool_id).inc()

    def checked(self, pool_id: str, reason: str, took_s: float | None = None) -> None:
        """The queen has heard how a pool is, or has asked in vain; `took_s` where it asked and nobody waited."""
        self._of(pool_id, self.checks, pool_id, outcome(reason), reason).inc()
        if took_s is not None:
            self._of(pool_id, self.check_times, pool_id).observe(1000 * took_s)

    def ready_pools(self, ready: Mapping[str, int]) -> None:
        """So many pools of each id are ready; those of any other id are gone, and with them their series."""
        for pool_id, count in ready.items():
            self._of(pool_id, self.available, pool_id).set(count)
        if ready:
            self.available.remove(NO_POOL)
        else:
            self.available.labels(NO_POOL).set(0)  # so that a sum over all pools is 0 rather than nothing
        for gone in self._series.keys() - ready.keys():
            for series, labels in self._series.pop(gone):
                series.remove(*labels)
            self._deep = {key for key in self._deep if key[1] != gone}

    def _of(self, pool_id: str, series: S, *labels: str) -> S:
        """A pool's child of `series`. They are remembered: to look for them among all takes long with thousands."""
        self._series.setdefault(pool_id, set()).add((series, labels))
        return series.labels(*labels)

    def heartbeat(self, node_id: str) -> None:
        """A node's heartbeat was accepted."""
        self.heartbeats.labels(node_id, "success", "").inc()

    def heartbeat_refused(self, node_id: str, reason: HeartbeatError, now: float) -> None:
        """A heartbeat was refused; `node_id` is empty where the node is not known."""
        self._refused_at[node_id, reason] = now
        self.heartbeats.labels(node_id, "error", reason).inc()

    def hide_old_errors(self, now: float) -> None:
        """Drop the series of errors that have not occurred for ERROR_SHOWN_S."""
        for key in [key for key, when in self._refused_at.items() if now - when >= ERROR_SHOWN_S]:
            del self._refused_at[key]
            self.heartbeats.remove(key[0], "error", key[1])

    def admitted(self, place: tuple[str, str], priority: str) -> None:
        """A task waits now that could go to `place`, see `Directory.place_of`."""
        engine, pool_id = place
        labels = (engine, "", pool_id, "", priority)
        (self._of(pool_id, self.enqueued, *labels) if pool_id else self.enqueued.labels(*labels)).inc()

    def depths(self, waiting: Mapping[tuple[str, str, str], int]) -> None:
        """So many tasks wait, by engine, pool id and priority; what was shown before and is not in it is 0."""
        for key in {*waiting, *self._deep}:
            engine, pool_id, priority = key
            labels = (engine, "", pool_id, priority)
            series = self._of(pool_id, self.depth, *labels) if pool_id else self.depth.labels(*labels)
            series.set(waiting.get(key, 0))
            self._deep.add(key)

    def forget_node(self, node_id: str) -> None:
        """A node is gone, and with it its series; pools of the same ids may be elsewhere."""
        self.heartbeats.remove_by_labels({"node_id": node_id})
        for key in [key for key in self._refused_at if key[0] == node_id]:
            del self._refused_at[key]
        by_replica = {self.started, self.canceled, self.tokens_in, self.tokens_out}
        for known in self._series.values():
            for item in [item for item in known if item[0] in by_replica and item[1][REPLICA] == node_id]:
                known.discard(item)
                item[0].remove(*item[1])

    def placed(self, task: Task, target: Candidate, looked_at: int) -> None:
        """`task` got a slot of `target`."""
        self._of(target.pool_id, self.started, *_place(target), task.request.priority).inc()
        self.considered.set(looked_at)
        wish = task.request.placement
        fallback = bool(wish and wish.prefer_pools and target.pool_id not in wish.prefer_pools)
        self.decisions.labels("assigned", _word(_pinned(task)), _word(fallback)).inc()
        if task.measurements.started_at is not None:
            self._of(target.pool_id, self.dispatch, target.pool_id).observe(
                1000 * (task.measurements.started_at - task.measurements.submitted_at)
            )

    def not_placed(self, task: Task) -> None:
        """`task` has begun to wait, and no slot that it could have was free."""
        self.decisions.labels("no_capacity", _word(_pinned(task)), _word(False)).inc()

    def ended(self, task: Task, target: Candidate) -> None:
        """`task` left its slot on `target`, however it ended."""
        place, pool_id = _place(target), target.pool_id
        self._of(pool_id, self.dispatched, pool_id, task.state.value).inc()
        self._of(pool_id, self.tokens_in, *place).inc(task.measurements.tokens_in)
        self._of(pool_id, self.tokens_out, *place).inc(task.measurements.tokens_out)
        if task.state == "cancelled":
            self._of(pool_id, self.canceled, *place, task.cancel_reason).inc()
        span = (*place[:3], task.request.priority)
        if task.measurements.first_token_at is not None:
            self._of(pool_id, self.first_token, *span).observe(
                1000 * (task.measurements.first_token_at - task.measurements.submitted_at)
            )
            self._of(pool_id, self.decode, *span).observe(task.measurements.decode_ms or 0)


def _place(target: Candidate) -> tuple[str, str, str, str]:
    return target.engine, target.engine_version or "", target.pool_id, target.replica_id


def _pinned(task: Task) -> bool:
    wish = task.request.placement
    return bool(wish and wish.mode == "pin")


def _word(value: bool) -> str:
    return str(value).lower()
