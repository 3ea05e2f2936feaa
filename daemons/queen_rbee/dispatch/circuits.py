"""Circuit breakers: stop placing tasks on a replica that fails, until it passes a health check.

`Circuit` and the functions over it are values; `Circuits` owns one per replica and reports changes to the registry, the
journal and the metrics.
"""

import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace

import trio

from llama_orch.contracts.pools import CircuitState
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate, ReplicaKey
from queen_rbee.pools.registry import PoolRegistry

FAULTS_TO_OPEN = 3
"""Failures of this many different requests open the circuit."""
FIRST_REST_S, MAX_REST_S = 2.0, 60.0
"""Time until the health check after different requests have failed; doubles each time until a task is answered."""
FIRST_RECHECK_S, MAX_RECHECK_S = 0.25, 5.0
"""Time until the next health check of an unavailable replica; bounds how long a restarted engine stays unused."""
MAX_DOUBLINGS = 16

HealthCheck = Callable[[Candidate], Awaitable[bool]]
"""Returns whether a replica is healthy, within a time limit."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """A failed request: the client's address and a digest of the content."""

    client: str
    content: Hashable


@dataclass(frozen=True)
class Circuit:
    """The circuit breaker of one replica. Times are trio's clock in seconds.

    `faults` differ in client and in content. `opened` counts openings by faults, `misses` openings because the replica
    was unavailable; an answered task resets both. `check_at` is when a health check is due. `half-open`: the check is
    running, and no task is placed yet.
    """

    state: CircuitState = "closed"
    faults: tuple[Fault, ...] = ()
    opened: int = 0
    misses: int = 0
    check_at: float = float("inf")


CLOSED = Circuit()


def after_fault(circuit: Circuit, now: float, fault: Fault, first_rest_s: float = FIRST_REST_S) -> Circuit:
    """Count a failure that either the replica or the request may have caused.

    Ignored unless the circuit is closed: the task was already running when it opened.
    """
    if circuit.state != "closed":
        return circuit
    known = any(fault.client == other.client or fault.content == other.content for other in circuit.faults)
    faults = circuit.faults if known else (*circuit.faults, fault)
    if len(faults) < FAULTS_TO_OPEN:
        return replace(circuit, faults=faults, check_at=min(circuit.check_at, now))
    rest_s = min(first_rest_s * 2.0 ** min(circuit.opened, MAX_DOUBLINGS), MAX_REST_S)
    return replace(circuit, state="open", faults=(), opened=circuit.opened + 1, check_at=now + rest_s)


def after_outage(circuit: Circuit, now: float) -> Circuit:
    """Open a closed circuit: the replica cannot serve any request at present."""
    return _open_after_miss(circuit, now) if circuit.state == "closed" else circuit


def during_check(circuit: Circuit) -> Circuit:
    """Mark the health check as running."""
    return replace(circuit, state="half-open" if circuit.state == "open" else circuit.state, check_at=float("inf"))


def after_check(circuit: Circuit, now: float, *, healthy: bool) -> Circuit:
    """Apply a health check's result. Ignored if the circuit opened meanwhile: the check began before."""
    if circuit.state == "open":
        return circuit
    if not healthy:
        return _open_after_miss(circuit, now)
    return replace(circuit, state="closed")


def after_answer(circuit: Circuit) -> Circuit:
    """Reset the counts after an answered task. Does not close an open circuit: the task began before it opened."""
    return replace(circuit, faults=()) if circuit.state != "closed" else CLOSED


def _open_after_miss(circuit: Circuit, now: float) -> Circuit:
    recheck_s = min(FIRST_RECHECK_S * 2.0 ** min(circuit.misses, MAX_DOUBLINGS), MAX_RECHECK_S)
    return replace(circuit, state="open", faults=(), misses=circuit.misses + 1, check_at=now + recheck_s)


class Circuits:
    """Owns all circuits. `Runs` reports each task's outcome; the dispatcher starts `check` for what `due` returns."""

    def __init__(self, registry: PoolRegistry, metrics: Metrics, is_healthy: HealthCheck) -> None:
        self._registry = registry
        self._metrics = metrics
        self.is_healthy = is_healthy
        self._circuits: dict[ReplicaKey, Circuit] = {}
        self._checking: set[ReplicaKey] = set()
        self._reported_open: set[ReplicaKey] = set()
        self.first_rest_s = FIRST_REST_S
        registry.on_ready.append(self.close)

    def record_answer(self, target: Candidate) -> None:
        if target.key in self._circuits:
            self._change(target.key, after_answer)

    def close(self, key: ReplicaKey) -> None:
        """Close the circuit of a replica that became ready: it is a new engine process."""
        if key in self._circuits:
            self._change(key, lambda _circuit: CLOSED)

    def record_fault(self, target: Candidate, now: float, fault: Fault, reason: str) -> None:
        """Count a failed task that may itself be the cause."""
        self._change(target.key, lambda circuit: after_fault(circuit, now, fault, self.first_rest_s), reason)

    def record_outage(self, target: Candidate, now: float, reason: str) -> None:
        """Open the circuit of a replica that cannot serve any request at present."""
        self._change(target.key, lambda circuit: after_outage(circuit, now), reason)

    @property
    def next_check(self) -> float:
        """When the next health check is due, on trio's clock; infinity if none is."""
        waiting = (circuit.check_at for key, circuit in self._circuits.items() if key not in self._checking)
        return min(waiting, default=float("inf"))

    def due(self, now: float) -> list[Candidate]:
        """Return the replicas to `check` now, and forget those that are gone.

        A replica that is not ready is not checked: its own machine does that, and its circuit closes once it is ready.
        """
        due = []
        for key, circuit in list(self._circuits.items()):
            target = self._registry.replicas.get(key)
            if target is None:
                self._change(key, lambda _circuit: CLOSED)
            elif circuit.check_at <= now and key not in self._checking:
                self._change(key, during_check)
                if target.ready:
                    self._checking.add(key)
                    due.append(target)
        return due

    async def check(self, target: Candidate) -> None:
        """Run a health check and apply its result."""
        try:
            healthy = await self.is_healthy(target)
        finally:
            self._checking.discard(target.key)
        if target.key in self._circuits:
            now = trio.current_time()
            reason = "it fails its health check"
            self._change(target.key, lambda circuit: after_check(circuit, now, healthy=healthy), reason)

    def _change(self, key: ReplicaKey, step: Callable[[Circuit], Circuit], reason: str = "") -> None:
        before = self._circuits.get(key, CLOSED)
        after = step(before)
        self._circuits[key] = after
        if after == CLOSED:
            del self._circuits[key]
        if after.state != before.state:
            log.debug("circuit of pool %s replica %s is %s: %s", *key, after.state, reason)
            self._registry.set_circuit(key, after.state)
            self._metrics.circuit(key, after.state)
            self._report(key, before, after, reason)

    def _report(self, key: ReplicaKey, before: Circuit, after: Circuit, reason: str) -> None:
        """Emit events for lasting failures only: a restarting or briefly full engine passes its first health check."""
        names = {"pool_id": key[0], "replica_id": key[1]}
        lasting = after.opened > before.opened or before.state == "half-open"
        if after.state == "open" and lasting and key not in self._reported_open:
            self._reported_open.add(key)
            self._metrics.circuit_opened(key[0])
            target = self._registry.replicas.get(key)
            emit(events.CIRCUIT_OPENED, **names, node_id=target.node_id if target else None, reason=reason)
        elif after.state == "closed" and key in self._reported_open:
            self._reported_open.discard(key)
            if key in self._registry.replicas:
                emit(events.CIRCUIT_CLOSED, **names)
