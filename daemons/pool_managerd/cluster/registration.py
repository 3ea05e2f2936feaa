"""The node's registration with the queen: state, outcomes of requests, and when to send the next one. Pure.

After an accepted heartbeat the queen sets the interval. After a failure the node backs off, with jitter so that the
nodes of a cluster do not all return at once. It never gives up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

BACKOFF_FIRST_S = 0.25
BACKOFF_MAX_S = 10.0
INTERVAL_MIN_S, INTERVAL_MAX_S = 0.1, 3600.0
EARLY_MAX = 4
EARLY_WITHIN_S = 1.0
"""At most EARLY_MAX early heartbeats are sent in this many seconds."""


@dataclass(frozen=True)
class Registered:
    """The queen has accepted the registration."""

    message: str
    warning: str | None = None


@dataclass(frozen=True)
class HeartbeatAccepted:
    """The next heartbeat is due in `next_heartbeat_ms`. `warning` is for the log. `may_sleep`: the node may be
    suspended now, as it asked."""

    next_heartbeat_ms: int
    warning: str | None = None
    may_sleep: bool = False


@dataclass(frozen=True)
class NodeUnknown:
    """The queen does not know the node: it has restarted, or has dropped the node."""


@dataclass(frozen=True)
class Rejected:
    """The queen answers with an error that an operator must fix."""

    reason: str


@dataclass(frozen=True)
class NoAnswer:
    """No answer, or an error that is expected to pass."""

    reason: str


Outcome = Registered | HeartbeatAccepted | NodeUnknown | Rejected | NoAnswer


@dataclass(frozen=True)
class RegistrationState:
    """The next request is due in `wait_s` seconds; `steady`: that is the usual interval, which a change may shorten.

    `failures` counts failures in a row, and `trouble` is the reason of the last one. `forgotten`: the queen did not
    know the node, and has not accepted a heartbeat since.
    """

    registered: bool = False
    forgotten: bool = False
    failures: int = 0
    wait_s: float = 0.0
    steady: bool = False
    trouble: str | None = None


def next_state(state: RegistrationState, outcome: Outcome, interval_s: float, jitter: float) -> RegistrationState:
    """Return the state after `outcome`; `jitter` is a random number from 0 to 1, `interval_s` the usual interval."""
    match outcome:
        case Registered():
            return replace(state, registered=True, wait_s=0.0, steady=False, trouble=None)
        case HeartbeatAccepted(next_heartbeat_ms):
            return RegistrationState(registered=True, wait_s=bounded_interval_s(next_heartbeat_ms / 1000), steady=True)
        case NodeUnknown() if not state.forgotten:
            return RegistrationState(forgotten=True)
        case NodeUnknown():
            trouble = "it forgets this node as soon as it has registered"
        case Rejected(reason) | NoAnswer(reason):
            trouble = reason
    return replace(
        state,
        registered=state.registered and isinstance(outcome, NoAnswer),
        failures=state.failures + 1,
        wait_s=backoff_s(state.failures, interval_s, jitter),
        steady=False,
        trouble=trouble,
    )


def bounded_interval_s(interval_s: float) -> float:
    return max(INTERVAL_MIN_S, min(interval_s, INTERVAL_MAX_S))


def backoff_s(failures: int, interval_s: float, jitter: float) -> float:
    """Return the seconds until the next attempt, with `failures` before the last one.

    Doubles up to the interval or BACKOFF_MAX_S; `jitter` takes away up to one half.
    """
    longest = min(BACKOFF_FIRST_S * 2.0 ** min(failures, 20), interval_s, BACKOFF_MAX_S)
    return longest * (0.5 + jitter / 2)


def early_heartbeat_at(earlier: Sequence[float], now_s: float) -> float:
    """Return when the next early heartbeat may be sent; `earlier` are the times of those before, oldest first."""
    if len(earlier) < EARLY_MAX:
        return now_s
    return max(now_s, earlier[-EARLY_MAX] + EARLY_WITHIN_S)
