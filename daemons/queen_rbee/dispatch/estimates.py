"""Statistics of waiting and running: service times, drain rate, predicted start, on-time probability, back-off.

Pure functions and values. Means are exponentially weighted, so that they follow a change of models or machines.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

WEIGHT = 0.1
INITIAL_MEAN_S = 1.0
MAX_MS = 3_600_000
RECENT_STARTS = 64
MIN_STARTS = 8
"""Fewer measured starts than this do not make a drain rate."""
MIN_TASKS = 3
"""Fewer measured tasks than this do not refuse a deadline."""
RETRY_MARGIN = 1.15
"""Retry times are later than places come free on average, by this factor: late is better than refused again."""
MIN_ON_TIME_PROBABILITY = 0.02
"""A task less likely than this to meet its deadline is refused at once."""


@dataclass(frozen=True)
class ServiceTimes:
    """How long tasks hold their slot, in seconds: mean, variance, mean time to first token; mean tokens per answer."""

    mean_s: float = INITIAL_MEAN_S
    variance: float = 0.0
    first_s: float = 0.0
    tokens: float = 0.0
    count: int = 0

    def with_task(self, held_s: float, first_s: float = 0.0, tokens: int = 0) -> "ServiceTimes":
        """Add a task that held its slot for `held_s` seconds, `first_s` of them before its first token."""
        if self.count == 0:
            return ServiceTimes(held_s, 0.0, first_s, tokens, 1)
        # the first tasks weigh the same, later ones more than those before
        weight = max(WEIGHT, 1 / (self.count + 1))
        deviation = held_s - self.mean_s
        return ServiceTimes(
            self.mean_s + weight * deviation,
            (1 - weight) * (self.variance + weight * deviation * deviation),
            self.first_s + weight * (first_s - self.first_s),
            self.tokens + weight * (tokens - self.tokens),
            self.count + 1,
        )

    def expected_s(self, tokens: int | None) -> float:
        """Return how long a task of `tokens` tokens holds its slot; the mean if `tokens` is None."""
        if tokens is None or self.tokens < 1:
            return self.mean_s
        decode_s = max(0.0, self.mean_s - self.first_s)
        return self.first_s + decode_s * tokens / self.tokens

    def expected_tokens(self, expected: int | None, limit: int | None) -> int | None:
        """Return the length of an answer: `expected` if given, else the mean, at most `limit`; None if unknown."""
        if expected is not None or limit is None:
            return expected
        return min(limit, round(self.tokens)) if self.tokens >= 1 else None


@dataclass(frozen=True)
class Capacity:
    """The slots that could serve a task."""

    slots_total: int
    slots_free: int
    rate: float
    """Tasks per second that all slots together complete."""

    @property
    def gap_s(self) -> float:
        """Mean seconds between two slots that come free, at most an hour; INITIAL_MEAN_S while nothing is ready."""
        return min(1 / self.rate, MAX_MS / 1000) if self.rate else INITIAL_MEAN_S


@dataclass(frozen=True)
class Arrival:
    """A pool that will serve with `slots` slots once its model is loaded, in `in_s` seconds."""

    pool_id: str
    in_s: float
    slots: int


def capacity_of(replicas: Iterable[tuple[int, int, ServiceTimes]]) -> Capacity:
    """Add up `replicas`, each `(slots_total, slots_free, times)`."""
    entries = list(replicas)
    rate = sum(total / max(times.mean_s, 1e-6) for total, _free, times in entries)
    return Capacity(sum(total for total, _, _ in entries), sum(free for _, free, _ in entries), rate)


class DrainRate:
    """How fast the queue moves: gaps between recent starts, measured only while other tasks waited."""

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=RECENT_STARTS)
        self._mean_s: float | None = None
        """The mean of the gaps, computed when it is asked for after a start: admissions ask for it many times."""
        self._last_start_at: float | None = None

    def record_start(self, now: float, backlog: bool) -> None:
        """Record that a task left the queue for a slot. `backlog`: other tasks still wait."""
        if self._last_start_at is not None:
            self._gaps.append(now - self._last_start_at)
            self._mean_s = None
        self._last_start_at = now if backlog else None

    def gap_s(self, now: float, capacity: Capacity) -> float:
        """Return the mean seconds between two starts; derived from service times until MIN_STARTS are measured."""
        if len(self._gaps) < MIN_STARTS:
            return capacity.gap_s
        if self._mean_s is None:
            self._mean_s = sum(self._gaps) / len(self._gaps)
        idle_s = now - self._last_start_at if self._last_start_at is not None else 0.0
        return max(self._mean_s, idle_s / 2)  # a queue that has stopped moving is slower than its history


def predicted_start_ms(position: int, capacity: Capacity, load_s: float = 0.0) -> int | None:
    """Return in how many milliseconds a task with `position` tasks ahead gets a slot; None if there are no slots.

    `load_s` is how long it takes until the slots are there.
    """
    if not capacity.slots_total:
        return None
    return _clamp_ms(1000 * (load_s + _wait_s(position, capacity)))


def _wait_s(position: int, capacity: Capacity) -> float:
    return max(0, position + 1 - capacity.slots_free) * capacity.gap_s


def on_time_probability(
    position: int, capacity: Capacity, times: ServiceTimes, tokens: int | None, left_s: float
) -> float:
    """Return the probability that a task ends within `left_s` seconds.

    The waits for the slots ahead and the service time are added as normal variables. The result is 1 until MIN_TASKS
    tasks have been measured.
    """
    if left_s <= 0:
        return 0.0
    if times.count < MIN_TASKS or math.isinf(left_s):
        return 1.0
    ahead = max(0, position + 1 - capacity.slots_free)
    expected_s = times.expected_s(tokens)
    squared_cv = times.variance / max(times.mean_s, 1e-9) ** 2  # of the coefficient of variation
    variance = (expected_s**2 + ahead * capacity.gap_s**2) * squared_cv
    return _normal_cdf(left_s, _wait_s(position, capacity) + expected_s, math.sqrt(variance))


def _normal_cdf(value: float, mean: float, deviation: float) -> float:
    # at least a tenth of the mean: the first few measurements are alike by chance
    return 0.5 * (1 + math.erf((value - mean) / (max(deviation, mean / 10, 1e-9) * math.sqrt(2))))


def backoff_ms(seconds: float) -> int:
    """Convert to milliseconds, from 1 to MAX_MS."""
    return max(1, _clamp_ms(1000 * seconds))


def _clamp_ms(value_ms: float) -> int:
    return math.ceil(min(max(value_ms, 0.0), MAX_MS))
