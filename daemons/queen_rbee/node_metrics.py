"""The metrics of nodes: how many there are, and what they and the queen say to each other."""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

RESULT_LABELS = ("outcome", "reason")

HeartbeatError = Literal["unknown", "refused"]
ERROR_SERIES_S = 300.0
"""How long the series of refused heartbeats is exported after the last one.

Alert rules take a heartbeat counter that does not increase for a silent node.
"""


class NodeMetrics:
    """Part of Metrics. Its names and labels are public, too."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refused_at: dict[tuple[str, HeartbeatError], float] = {}
        self.online = Gauge("orchd_nodes_online", "Nodes that send heartbeats.", registry=registry)
        self.asleep = Gauge("orchd_nodes_asleep", "Nodes that are suspended until they are needed.", registry=registry)
        self.wakes = Counter(
            "orchd_node_wakes", "Attempts to wake a node, by outcome.", ("node_id", "outcome"), registry=registry
        )
        self.registrations = Counter(
            "orchd_node_registrations", "Registrations of nodes.", RESULT_LABELS, registry=registry
        )
        self.heartbeats = Counter(
            "orchd_node_heartbeats", "Heartbeats of nodes.", ("node_id", *RESULT_LABELS), registry=registry
        )
        self.deregistrations = Counter(
            "orchd_node_deregistrations", "Deregistrations of nodes.", RESULT_LABELS, registry=registry
        )

    def woken(self, node_id: str, *, success: bool) -> None:
        self.wakes.labels(node_id, "success" if success else "error").inc()

    def heartbeat(self, node_id: str) -> None:
        """Count an accepted heartbeat."""
        self.heartbeats.labels(node_id, "success", "").inc()

    def sleeps(self, node_id: str) -> None:
        """Remove the series of accepted heartbeats, as one that does not increase means a silent node."""
        self.heartbeats.remove_by_labels({"node_id": node_id, "outcome": "success"})

    def heartbeat_refused(self, node_id: str, reason: HeartbeatError, now: float) -> None:
        """Count a refused heartbeat. `node_id` is empty if the node is unknown."""
        self._refused_at[node_id, reason] = now
        self.heartbeats.labels(node_id, "error", reason).inc()

    def hide_old_errors(self, now: float) -> None:
        """Remove the series of refusals that have not occurred for ERROR_SERIES_S."""
        for key in [key for key, when in self._refused_at.items() if now - when >= ERROR_SERIES_S]:
            del self._refused_at[key]
            self.heartbeats.remove(key[0], "error", key[1])

    def forget(self, node_id: str) -> None:
        """Remove the series of a node."""
        self.heartbeats.remove_by_labels({"node_id": node_id})
        self.wakes.remove_by_labels({"node_id": node_id})
        for key in [key for key in self._refused_at if key[0] == node_id]:
            del self._refused_at[key]
