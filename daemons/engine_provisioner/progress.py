"""What a supervisor has promised: to move on within so many seconds.

A step may rightly take hours (a download) or milliseconds, so that no fixed beat fits it. Each step says how long it
may be silent; the watchdog is pinged while every supervisor keeps its word (`overdue`).
"""

import math
import time
from collections.abc import Callable, Iterable

Clock = Callable[[], float]
SLACK_S = 30.0
DISK_STEP_S = 60.0
"""The time allowed for one step on a slow disk."""


class Progress:
    """One supervisor's current promise. May be renewed from a thread that works for the supervisor."""

    def __init__(self, pool_id: str, clock: Clock = time.monotonic) -> None:
        self._pool_id = pool_id
        self._clock = clock
        self._deadline = math.inf
        self._doing = "not started"

    def expect(self, within_s: float, doing: str) -> None:
        """Promise the next call within `within_s` seconds, `doing` this meanwhile."""
        self._deadline, self._doing = self._clock() + within_s, doing

    def rest(self, doing: str) -> None:
        """Promise nothing: waiting for something that may never come."""
        self.expect(math.inf, doing)

    def overdue(self) -> str | None:
        """What was promised and has not come, SLACK_S seconds after it was due."""
        late = self._clock() - self._deadline
        return f"pool {self._pool_id}: {self._doing}, overdue for {late:.0f} s" if late > SLACK_S else None


def overdue(promises: Iterable[Progress]) -> list[str]:
    """The broken promises among `promises`."""
    return [words for promise in promises if (words := promise.overdue())]
