"""Circuit breakers as pure values: a replica that fails again and again is left alone for a while, then tried.

Only faults of the engine or of the way to it count (no connection, an answer of 5xx, a stall): a refused request or a
client that leaves says nothing of the replica. A half-open circuit closes with the first task that is answered, and
opens again, for twice as long, with the first that is not.
"""

from dataclasses import dataclass, replace

from llama_orch.contracts.pools import CircuitState

FAULTS = 3
"""So many in a row open the circuit."""
FIRST_REST_S, LONGEST_REST_S = 2.0, 60.0


@dataclass(frozen=True)
class Circuit:
    """One replica's: `faults` in a row, how often it `opened` since it worked last, and when it is tried again, on
    trio's clock in seconds."""

    state: CircuitState = "closed"
    faults: int = 0
    opened: int = 0
    retry_at: float = float("inf")


def failed(circuit: Circuit, now: float, first_rest_s: float = FIRST_REST_S) -> Circuit:
    """After one more fault. One of a task that was under way when the circuit opened prolongs nothing."""
    faults = circuit.faults + 1
    if circuit.state == "open" or (circuit.state == "closed" and faults < FAULTS):
        return replace(circuit, faults=faults)
    rest_s = min(first_rest_s * 2.0 ** min(circuit.opened, 16), LONGEST_REST_S)
    return Circuit("open", faults, circuit.opened + 1, now + rest_s)


def worked(circuit: Circuit) -> Circuit:
    """After an answer. One of a task that was under way when the circuit opened does not close it: the probe does."""
    return replace(circuit, faults=0) if circuit.state == "open" else Circuit()


def rested(circuit: Circuit, now: float) -> Circuit:
    """Open until its rest is over, then half-open."""
    if circuit.state == "open" and now >= circuit.retry_at:
        return replace(circuit, state="half-open", retry_at=float("inf"))
    return circuit
