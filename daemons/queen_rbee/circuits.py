"""The circuit of each replica: owns what is known of failures, and tells registry, journal and metrics of changes."""

from collections.abc import Callable

from llama_orch.telemetry import events
from llama_orch.telemetry.records import emit
from queen_rbee.candidates import Candidate
from queen_rbee.circuit import FIRST_REST_S, Circuit, failed, rested, worked
from queen_rbee.matching import Key
from queen_rbee.metrics import Metrics
from queen_rbee.registry import Registry

CLOSED = Circuit()


class Circuits:
    """Told of each task's outcome by the dispatcher."""

    def __init__(self, registry: Registry, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._known: dict[Key, Circuit] = {}
        self.first_rest_s = FIRST_REST_S
        registry.on_ready = self.renewed

    def worked(self, target: Candidate) -> None:
        """A task was answered there."""
        self._change(target.key, worked)

    def renewed(self, key: Key) -> None:
        """A replica has become ready: it is another engine than the one that failed."""
        self._change(key, lambda _circuit: CLOSED)

    def failed(self, target: Candidate, now: float, reason: str) -> None:
        """A task met a fault of the replica there."""
        before = self._known.get(target.key, CLOSED)
        after = self._change(target.key, lambda circuit: failed(circuit, now, self.first_rest_s))
        if after.state == "open" != before.state:
            names = {"pool_id": target.pool_id, "replica_id": target.replica_id, "node_id": target.node_id}
            emit(events.CIRCUIT_OPENED, **names, faults=after.faults, rest_s=round(after.retry_at - now), reason=reason)

    @property
    def next_retry(self) -> float:
        """When the next open circuit has rested, on trio's clock; infinity where none is open."""
        return min((circuit.retry_at for circuit in self._known.values()), default=float("inf"))

    def tick(self, now: float) -> None:
        """Let those be tried that have rested, and forget those of replicas that are gone."""
        for key in list(self._known):
            if key in self._registry.replicas:
                self._change(key, lambda circuit: rested(circuit, now))
            else:
                self._change(key, lambda _circuit: CLOSED)

    def _change(self, key: Key, step: Callable[[Circuit], Circuit]) -> Circuit:
        before = self._known.get(key, CLOSED)
        after = step(before)
        self._known[key] = after
        if after == CLOSED:
            del self._known[key]
        if after.state != before.state:
            self._registry.set_circuit(key, after.state)
            self._metrics.circuit(key, after.state)
            if after.state == "closed" and key in self._registry.replicas:
                emit(events.CIRCUIT_CLOSED, pool_id=key[0], replica_id=key[1])
        return after
