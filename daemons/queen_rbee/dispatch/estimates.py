"""What waiting and running cost, measured: service times, drain rate, predicted start, on-time probability, back-off.

Values in, values out. Means are exponentially weighted, so that a fleet that changes its models is judged by what it
does now.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

WEIGHT = 0.1
FIRST_GUESS_S = 1.0
LONGEST_MS = 3_600_000
RECENT_STARTS = 64
ENOUGH_STARTS = 8
ENOUGH_TASKS = 3
MARGIN = 1.15
"""Whoever is refused is told to come back so much later than places come free on average: better a little late than
refused again."""
HOPELESS = 0.02
"""A task that will be on time with less probability than this is refused at once."""


@dataclass(frozen=True)
class ServiceTimes:
    """How long tasks hold their slot, in seconds: mean and variance, up to the first token, tokens an answer."""

    mean_s: float = FIRST_GUESS_S
    variance: float = 0.0
    first_s: float = 0.0
    tokens: float = 0.0
    count: int = 0

    def ended(self, held_s: float, first_s: float = 0.0, tokens: int = 0) -> "ServiceTimes":
        """With one more task, which held its slot for `held_s` seconds, `first_s` of them before its first token."""
        if self.count == 0:
            return ServiceTimes(held_s, 0.0, first_s, tokens, 1)
        # early on every task counts alike, later the recent ones count more
        weight = max(WEIGHT, 1 / (self.count + 1))
        off = held_s - self.mean_s
        return ServiceTimes(
            self.mean_s + weight * off,
            (1 - weight) * (self.variance + weight * off * off),
            self.first_s + weight * (first_s - self.first_s),
            self.tokens + weight * (tokens - self.tokens),
            self.count + 1,
        )

    def expected_s(self, tokens: int | None) -> float:
        """How long a task of `tokens` will hold its slot; one that does not say is like the others."""
        if tokens is None or self.tokens < 1:
            return self.mean_s
        decode_s = max(0.0, self.mean_s - self.first_s)
        return self.first_s + decode_s * tokens / self.tokens

    def answer(self, expected: int | None, most: int | None) -> int | None:
        """How many tokens a task will have: what it says, or the usual number but not above its own limit."""
        if expected is not None or most is None:
            return expected
        return min(most, round(self.tokens)) if self.tokens >= 1 else None


@dataclass(frozen=True)
class Capacity:
    """The slots that could serve a task."""

    slots_total: int
    slots_free: int
    rate: float
    """Tasks a second that all slots together get through."""

    @property
    def gap_s(self) -> float:
        """Seconds between two slots that come free, an hour at most; a guess while nothing is ready."""
        return min(1 / self.rate, LONGEST_MS / 1000) if self.rate else FIRST_GUESS_S


def capacity_of(replicas: Iterable[tuple[int, int, ServiceTimes]]) -> Capacity:
    """What `replicas`, each `(slots_total, slots_free, times)`, get through together."""
    found = list(replicas)
    rate = sum(total / max(times.mean_s, 1e-6) for total, _free, times in found)
    return Capacity(sum(total for total, _, _ in found), sum(free for _, free, _ in found), rate)


class DrainRate:
    """How fast the queue moves: the recent starts of tasks, counted only while others waited behind them."""

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=RECENT_STARTS)
        self._since: float | None = None

    def started(self, now: float, backlog: bool) -> None:
        """A task has left the queue for a slot; `backlog`: others still wait."""
        if self._since is not None:
            self._gaps.append(now - self._since)
        self._since = now if backlog else None

    def gap_s(self, now: float, capacity: Capacity) -> float:
        """Seconds between two places that come free: as measured, or from service times as long as too little is."""
        if len(self._gaps) < ENOUGH_STARTS:
            return capacity.gap_s
        mean = sum(self._gaps) / len(self._gaps)
        still = now - self._since if self._since is not None else 0.0
        return max(mean, still / 2)  # a queue that has stopped moving is slower than it was


def predicted_start_ms(position: int, capacity: Capacity) -> int | None:
    """Milliseconds until the task with `position` others before it gets a slot; None where there are no slots."""
    if not capacity.slots_total:
        return None
    return _bounded(1000 * _wait_s(position, capacity))


def _wait_s(position: int, capacity: Capacity) -> float:
    return max(0, position + 1 - capacity.slots_free) * capacity.gap_s


def on_time_probability(
    position: int, capacity: Capacity, times: ServiceTimes, tokens: int | None, left_s: float
) -> float:
    """How probable it is that a task ends within `left_s` seconds.

    The waits for the slots ahead and the service itself are summed as normal variables. Until ENOUGH_TASKS have been
    measured the answer is 1: nothing is known that speaks against it.
    """
    if left_s <= 0:
        return 0.0
    if times.count < ENOUGH_TASKS or math.isinf(left_s):
        return 1.0
    ahead = max(0, position + 1 - capacity.slots_free)
    expected = times.expected_s(tokens)
    spread = times.variance / max(times.mean_s, 1e-9) ** 2  # squared coefficient of variation
    variance = (expected**2 + ahead * capacity.gap_s**2) * spread
    return _normal(left_s, _wait_s(position, capacity) + expected, math.sqrt(variance))


def _normal(value: float, mean: float, deviation: float) -> float:
    """The share of a normal distribution below `value`."""
    # a tenth of the mean at least: the first few measurements are alike by chance
    return 0.5 * (1 + math.erf((value - mean) / (max(deviation, mean / 10, 1e-9) * math.sqrt(2))))


def backoff_ms(seconds: float) -> int:
    """What a client is told: at least a millisecond, at most an hour."""
    return max(1, _bounded(1000 * seconds))


def _bounded(value_ms: float) -> int:
    return math.ceil(min(max(value_ms, 0.0), LONGEST_MS))
