"""The circuit of each replica: owns what is known of failures, and tells registry, journal and metrics of changes."""

import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace

import trio

from llama_orch.contracts.pools import CircuitState
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate, Key
from queen_rbee.pools.registry import Registry

FAULTS = 3
"""Failures of so many different requests open the circuit."""
FIRST_REST_S, LONGEST_REST_S = 2.0, 60.0
"""Time to the health check after different requests have failed; doubled each time until a task is answered."""
FIRST_LOOK_S, LONGEST_LOOK_S = 0.25, 5.0
"""Time to the health check of a replica that can serve nobody: an engine that restarts is missed for no longer."""


@dataclass(frozen=True)
class Fault:
    """A request that failed: who sent it, and what tells its content from others."""

    client: str
    content: Hashable


@dataclass(frozen=True)
class Circuit:
    """One replica's. Times are trio's clock in seconds.

    `faults` differ in client and in content. `opened` counts openings by faults, and `misses` proofs that it can serve
    nobody; both until a task is answered. A health check is due at `check_at`. `half-open`: it is under way, and no
    task is sent there yet.
    """

    state: CircuitState = "closed"
    faults: tuple[Fault, ...] = ()
    opened: int = 0
    misses: int = 0
    check_at: float = float("inf")


CLOSED = Circuit()


def failed(circuit: Circuit, now: float, fault: Fault, first_rest_s: float = FIRST_REST_S) -> Circuit:
    """After a failure that may be the replica's or the request's. One of a task that was under way when the circuit
    opened prolongs nothing."""
    if circuit.state != "closed":
        return circuit
    known = any(fault.client == other.client or fault.content == other.content for other in circuit.faults)
    faults = circuit.faults if known else (*circuit.faults, fault)
    if len(faults) < FAULTS:
        return replace(circuit, faults=faults, check_at=min(circuit.check_at, now))
    rest_s = min(first_rest_s * 2.0 ** min(circuit.opened, 16), LONGEST_REST_S)
    return replace(circuit, state="open", faults=(), opened=circuit.opened + 1, check_at=now + rest_s)


def away(circuit: Circuit, now: float) -> Circuit:
    """After proof that the replica can serve nobody at present."""
    return _missed(circuit, now) if circuit.state == "closed" else circuit


def checking(circuit: Circuit) -> Circuit:
    """While its health check is under way."""
    return replace(circuit, state="half-open" if circuit.state == "open" else circuit.state, check_at=float("inf"))


def checked(circuit: Circuit, now: float, *, well: bool) -> Circuit:
    """After its health check. One that was under way when the circuit opened says nothing: it began before."""
    if circuit.state == "open":
        return circuit
    if not well:
        return _missed(circuit, now)
    return replace(circuit, state="closed")


def worked(circuit: Circuit) -> Circuit:
    """After a task was answered. One that was under way when the circuit opened does not close it."""
    return replace(circuit, faults=()) if circuit.state != "closed" else CLOSED


def _missed(circuit: Circuit, now: float) -> Circuit:
    look_s = min(FIRST_LOOK_S * 2.0 ** min(circuit.misses, 16), LONGEST_LOOK_S)
    return replace(circuit, state="open", faults=(), misses=circuit.misses + 1, check_at=now + look_s)


log = logging.getLogger(__name__)

Well = Callable[[Candidate], Awaitable[bool]]
"""Asks a replica whether it is well, within a limit."""


class Circuits:
    """Told of each task's outcome by `Runs`; the dispatcher starts `check` for what `due` returns."""

    def __init__(self, registry: Registry, metrics: Metrics, well: Well) -> None:
        self._registry = registry
        self._metrics = metrics
        self.well = well
        self._known: dict[Key, Circuit] = {}
        self._checked_now: set[Key] = set()
        self._told: set[Key] = set()
        self.first_rest_s = FIRST_REST_S
        registry.on_ready = self.renewed

    def worked(self, target: Candidate) -> None:
        """A task was answered there."""
        if target.key in self._known:
            self._change(target.key, worked)

    def renewed(self, key: Key) -> None:
        """A replica has become ready: it is another engine than the one that failed."""
        if key in self._known:
            self._change(key, lambda _circuit: CLOSED)

    def failed(self, target: Candidate, now: float, fault: Fault, reason: str) -> None:
        """A task failed there, and the cause may be the task or the replica."""
        self._change(target.key, lambda circuit: failed(circuit, now, fault, self.first_rest_s), reason)

    def away(self, target: Candidate, now: float, reason: str) -> None:
        """The replica can serve nobody at present."""
        self._change(target.key, lambda circuit: away(circuit, now), reason)

    @property
    def next_check(self) -> float:
        """When the next health check is due, on trio's clock; infinity where none is."""
        waiting = (circuit.check_at for key, circuit in self._known.items() if key not in self._checked_now)
        return min(waiting, default=float("inf"))

    def due(self, now: float) -> list[Candidate]:
        """The replicas to `check` now. Those that are gone are forgotten; those that their own machine calls unready
        are left to it: once they are ready they begin anew."""
        found = []
        for key, circuit in list(self._known.items()):
            target = self._registry.replicas.get(key)
            if target is None:
                self._change(key, lambda _circuit: CLOSED)
            elif circuit.check_at <= now and key not in self._checked_now:
                self._change(key, checking)
                if target.ready:
                    self._checked_now.add(key)
                    found.append(target)
        return found

    async def check(self, target: Candidate) -> None:
        """Ask `target` whether it is well, and change its circuit accordingly."""
        try:
            well = await self.well(target)
        finally:
            self._checked_now.discard(target.key)
        if target.key in self._known:
            now = trio.current_time()
            self._change(target.key, lambda circuit: checked(circuit, now, well=well), "it fails its health check")

    def _change(self, key: Key, step: Callable[[Circuit], Circuit], reason: str = "") -> None:
        before = self._known.get(key, CLOSED)
        after = step(before)
        self._known[key] = after
        if after == CLOSED:
            del self._known[key]
        if after.state != before.state:
            log.debug("circuit of pool %s replica %s is %s: %s", *key, after.state, reason)
            self._registry.set_circuit(key, after.state)
            self._metrics.circuit(key, after.state)
            self._tell(key, before, after, reason)

    def _tell(self, key: Key, before: Circuit, after: Circuit, reason: str) -> None:
        """Report what lasts: an engine that restarts, or is full for a moment, has passed its first health check."""
        names = {"pool_id": key[0], "replica_id": key[1]}
        lasting = after.opened > before.opened or before.state == "half-open"
        if after.state == "open" and lasting and key not in self._told:
            self._told.add(key)
            self._metrics.circuit_opened(key[0])
            target = self._registry.replicas.get(key)
            emit(events.CIRCUIT_OPENED, **names, node_id=target.node_id if target else None, reason=reason)
        elif after.state == "closed" and key in self._told:
            self._told.discard(key)
            if key in self._registry.replicas:
                emit(events.CIRCUIT_CLOSED, **names)
