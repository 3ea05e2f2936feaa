"""Circuit breakers as pure values: a replica that cannot serve is left alone until a health check says that it can.

Two things open a circuit. One is proof that the replica can serve nobody at present: it refuses connections, says that
it has no room, or fails its health check. The other is FAULTS failures of different requests from different clients
without an answer in between. One request that fails again and again, or one client that sends bad ones, opens nothing
(sglang's router could be closed to all by one client, sgl-project/sglang issue 25811). Each failure whose cause is not
sure is followed by a health check. Only a health check closes a circuit: of a client's request nobody knows whether it
would be answered by a healthy replica.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace

from llama_orch.contracts.pools import CircuitState

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
