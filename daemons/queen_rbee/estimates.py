"""What waiting costs, measured: service times, drain rate, predicted start, back-off.

Values in, values out. Service times are an exponentially weighted mean, so that a fleet that changes its models is
judged by what it does now.
"""

from dataclasses import dataclass

WEIGHT = 0.1
FIRST_GUESS_S = 1.0
LONGEST_MS = 3_600_000


@dataclass(frozen=True)
class ServiceTimes:
    """Mean time in seconds for which a task holds its slot, over the tasks that have ended."""

    mean_s: float = FIRST_GUESS_S
    count: int = 0

    def ended(self, held_s: float) -> "ServiceTimes":
        """With one more task, which held its slot for `held_s` seconds."""
        if self.count == 0:
            return ServiceTimes(held_s, 1)
        # early on every task counts alike, later the recent ones count more
        weight = max(WEIGHT, 1 / (self.count + 1))
        return ServiceTimes(self.mean_s + weight * (held_s - self.mean_s), self.count + 1)


def predicted_start_ms(position: int, slots_total: int, slots_free: int, times: ServiceTimes) -> int:
    """Milliseconds until the task with `position` others before it gets a slot.

    Slots free themselves evenly over a mean service time; without any slot, one is reckoned with.
    """
    ahead = position + 1 - slots_free
    if ahead <= 0:
        return 0
    return _bounded(1000 * times.mean_s * ahead / max(1, slots_total))


def backoff_ms(slots_total: int, times: ServiceTimes) -> int:
    """Milliseconds until the queue has probably moved by one place."""
    return max(1, _bounded(1000 * times.mean_s / max(1, slots_total)))


def _bounded(value_ms: float) -> int:
    return round(min(max(value_ms, 0.0), LONGEST_MS))
