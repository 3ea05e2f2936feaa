"""queen-rbee's Prometheus series, with the names, labels and buckets that CONTRACT promises."""

from collections.abc import Mapping
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector

from llama_orch.contracts.pools import CircuitState
from queen_rbee.candidates import Candidate
from queen_rbee.task import Task

FIRST_TOKEN_MS = (50, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000)
DECODE_MS = (250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12000)
CHECK_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
PLACE = ("engine", "engine_version", "pool_id", "replica_id")
REPLICA = PLACE.index("replica_id")
TASK = (*PLACE, "priority")
SPAN = ("engine", "engine_version", "pool_id", "priority")
S = TypeVar("S", bound=MetricWrapperBase)

CheckOutcome = Literal["ready", "unready", "unreachable"]
"""What was heard of a pool: a heartbeat or an answer says that it is ready or not; an engine does not answer."""


def outcome_of(ready: bool) -> CheckOutcome:
    """Of a pool that was heard."""
    return "ready" if ready else "unready"


class Metrics:
    """All series of one queen; a task that was never placed has empty labels for its place."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
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
        self.checks = Counter("orchd_pool_health_checks", "Words on a pool.", ("pool_id", "outcome"), registry=registry)
        self.check_times = Histogram(
            "orchd_pool_health_check_duration_ms",
            "From asking to the answer, where the queen asks.",
            ("pool_id",),
            buckets=CHECK_MS,
            registry=registry,
        )
        self.circuits = Gauge(
            "orchd_circuit_open",
            "1 while nothing is sent to a replica after failures, 0.5 while one task tries it.",
            ("pool_id", "replica_id"),
            registry=registry,
        )
        self.circuit_openings = Counter(
            "orchd_circuit_openings", "Circuits that opened.", ("pool_id",), registry=registry
        )
        self.nodes_online = Gauge("orchd_nodes_online", "Nodes that are heard.", registry=registry)
        self.registrations = Counter("orchd_node_registrations", "Registrations.", ("outcome",), registry=registry)
        self.heartbeats = Counter("orchd_node_heartbeats", "Heartbeats.", ("node_id", "outcome"), registry=registry)
        self.deregistrations = Counter(
            "orchd_node_deregistrations", "Nodes that left.", ("outcome",), registry=registry
        )
        self.verifications = Counter(
            "catalog_verifications", "Checks of models' digests.", ("result", "reason", "engine"), registry=registry
        )
        self.model_state = Gauge("model_state", "1 for the state of a model.", ("model_id", "state"), registry=registry)

    def circuit(self, key: tuple[str, str], state: CircuitState) -> None:
        """The circuit of the replica `key` has changed; a closed one has no series."""
        if state == "closed":
            self.circuits.remove(*key)
            return
        self.circuits.labels(*key).set(1 if state == "open" else 0.5)
        if state == "open":
            self._of(key[0], self.circuit_openings, key[0]).inc()

    def checked(self, pool_id: str, outcome: CheckOutcome, took_s: float | None = None) -> None:
        """The queen has heard how a pool is, or has asked in vain; `took_s` where she asked and nobody waited."""
        self._of(pool_id, self.checks, pool_id, outcome).inc()
        if took_s is not None:
            self._of(pool_id, self.check_times, pool_id).observe(1000 * took_s)

    def ready_pools(self, ready: Mapping[str, int]) -> None:
        """So many pools of each id are ready; those of any other id are gone, and with them their series."""
        for pool_id, count in ready.items():
            self._of(pool_id, self.available, pool_id).set(count)
        for gone in self._series.keys() - ready.keys():
            for series, labels in self._series.pop(gone):
                series.remove(*labels)

    def _of(self, pool_id: str, series: S, *labels: str) -> S:
        """A pool's child of `series`. They are remembered: to look for them among all takes long with thousands."""
        self._series.setdefault(pool_id, set()).add((series, labels))
        return series.labels(*labels)

    def forget_node(self, node_id: str) -> None:
        """A node is gone, and with it its series; pools of the same ids may be elsewhere."""
        self.heartbeats.remove_by_labels({"node_id": node_id})
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
        pinned = bool(wish and wish.mode == "pin")
        fallback = bool(wish and wish.prefer_pools and target.pool_id not in wish.prefer_pools)
        self.decisions.labels("assigned", _word(pinned), _word(fallback)).inc()
        if task.started_at is not None:
            self._of(target.pool_id, self.dispatch, target.pool_id).observe(
                1000 * (task.started_at - task.submitted_at)
            )

    def ended(self, task: Task, target: Candidate) -> None:
        """`task` left its slot on `target`, however it ended."""
        place, pool_id = _place(target), target.pool_id
        self._of(pool_id, self.dispatched, pool_id, task.state.value).inc()
        self._of(pool_id, self.tokens_in, *place).inc(task.tokens_in)
        self._of(pool_id, self.tokens_out, *place).inc(task.tokens_out)
        if task.state == "cancelled":
            self._of(pool_id, self.canceled, *place, task.cancel_reason).inc()
        span = (*place[:3], task.request.priority)
        if task.first_token_at is not None:
            self._of(pool_id, self.first_token, *span).observe(1000 * (task.first_token_at - task.submitted_at))
            self._of(pool_id, self.decode, *span).observe(task.decode_ms or 0)


def _place(target: Candidate) -> tuple[str, str, str, str]:
    return target.engine, target.engine_version or "", target.pool_id, target.replica_id


def _word(value: bool) -> str:
    return str(value).lower()
