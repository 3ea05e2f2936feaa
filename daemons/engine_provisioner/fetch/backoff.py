"""When a broken download goes on: at once while bytes arrive, then at growing intervals, then not at all. Pure."""

from dataclasses import dataclass

FIRST_S, LONGEST_S = 0.25, 15.0
TRIES = 7
"""Attempts in a row without a new byte. They take about 25 s, then the supervisor decides when to go on."""


@dataclass(frozen=True)
class Backoff:
    """The failed attempts since bytes last arrived; `best` is the largest number of bytes that were on disk."""

    failed: int = 0
    best: int = 0

    def after_failure(self, done: int) -> "Backoff":
        """Return the state after an attempt failed with `done` bytes on disk."""
        return Backoff(1, done) if done > self.best else Backoff(self.failed + 1, self.best)

    def delay_s(self, jitter: float) -> float | None:
        """Return the pause before the next attempt, None if there is none; `jitter` is from 0 to 1."""
        if self.failed >= TRIES:
            return None
        return min(FIRST_S * 2.0 ** (self.failed - 1), LONGEST_S) * (0.5 + jitter / 2)
