"""How this node stands with its queen, and when it speaks to her next. Pure: values in, values out.

Whoever is answered speaks again when the queen says; whoever is not waits longer each time, with jitter so that the
nodes of a cluster do not all come back in one moment. It is never given up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

FIRST_S = 0.25
LONGEST_S = 10.0
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 0.1, 3600.0
EARLY_MOST = 4
EARLY_WITHIN_S = 1.0


@dataclass(frozen=True)
class Registered:
    """The queen knows the node now."""

    message: str
    warning: str | None = None


@dataclass(frozen=True)
class HeartbeatAccepted:
    """A heartbeat was taken; the next one is due in so many milliseconds. `warning` is for the log."""

    next_heartbeat_ms: int
    warning: str | None = None


@dataclass(frozen=True)
class NodeUnknown:
    """The queen does not know the node (any more): she has started anew, or given it up."""


@dataclass(frozen=True)
class Rejected:
    """The queen answers, and not as it should be; a person must do something."""

    reason: str


@dataclass(frozen=True)
class NoAnswer:
    """There was no answer, or one that promises to be over soon."""

    reason: str


Outcome = Registered | HeartbeatAccepted | NodeUnknown | Rejected | NoAnswer


@dataclass(frozen=True)
class RegistrationState:
    """`failures` in a row; `trouble` is why the last try failed; `forgotten` while a node that the queen did not know
    has yet to have a heartbeat taken.

    The next turn is in `wait_s` seconds. `steady` where that is the usual interval, which a change may cut short.
    """

    registered: bool = False
    forgotten: bool = False
    failures: int = 0
    wait_s: float = 0.0
    steady: bool = False
    trouble: str | None = None


def after(standing: RegistrationState, outcome: Outcome, interval_s: float, jitter: float) -> RegistrationState:
    """`standing` after `outcome`; `jitter` is a random number from 0 to 1, `interval_s` the usual one."""
    match outcome:
        case Registered():
            return replace(standing, registered=True, wait_s=0.0, steady=False, trouble=None)
        case HeartbeatAccepted(next_heartbeat_ms):
            return RegistrationState(registered=True, wait_s=bounded(next_heartbeat_ms / 1000), steady=True)
        case NodeUnknown() if not standing.forgotten:
            return RegistrationState(forgotten=True)
        case NodeUnknown():
            trouble = "it forgets this node as soon as it has registered"
        case Rejected(reason) | NoAnswer(reason):
            trouble = reason
    return replace(
        standing,
        registered=standing.registered and isinstance(outcome, NoAnswer),
        failures=standing.failures + 1,
        wait_s=backoff_s(standing.failures, interval_s, jitter),
        steady=False,
        trouble=trouble,
    )


def bounded(wait_s: float) -> float:
    """A wait that a queen asks for, within what makes sense."""
    return max(SHORTEST_INTERVAL_S, min(wait_s, LONGEST_INTERVAL_S))


def backoff_s(failures: int, interval_s: float, jitter: float) -> float:
    """Seconds until the next try after `failures` before this one: doubling, at most the interval or LONGEST_S; of that
    a random part between one half and the whole."""
    longest = min(FIRST_S * 2.0 ** min(failures, 20), interval_s, LONGEST_S)
    return longest * (0.5 + jitter / 2)


def early_at(earlier: Sequence[float], now_s: float) -> float:
    """When the next early heartbeat may be sent; `earlier` are the times of those before, oldest first."""
    if len(earlier) < EARLY_MOST:
        return now_s
    return max(now_s, earlier[-EARLY_MOST] + EARLY_WITHIN_S)
