"""The time that each supervisor allows for its current step.

A step may take milliseconds or, for a download, hours, so the watchdog cannot use one fixed interval. Each step sets
its own deadline, and the watchdog is pinged while no supervisor is overdue.
"""

import math
import time
from collections.abc import Callable, Iterable

Clock = Callable[[], float]
SLACK_S = 30.0
DISK_STEP_S = 60.0
"""The time allowed for one step on a slow disk."""


class StepDeadline:
    """The deadline of one supervisor's current step. `expect` may be called from a worker thread."""

    def __init__(self, pool_id: str, clock: Clock = time.monotonic) -> None:
        self._pool_id = pool_id
        self._clock = clock
        self._deadline = math.inf
        self._step = "not started"

    def expect(self, within_s: float, step: str) -> None:
        """Begin `step`, which must end or report again within `within_s` seconds."""
        self._deadline, self._step = self._clock() + within_s, step

    def rest(self, step: str) -> None:
        """Begin `step`, a wait without a deadline."""
        self.expect(math.inf, step)

    def overdue(self) -> str | None:
        """Describe the step if its deadline passed more than SLACK_S seconds ago."""
        late = self._clock() - self._deadline
        return f"pool {self._pool_id}: {self._step}, overdue for {late:.0f} s" if late > SLACK_S else None


def overdue(deadlines: Iterable[StepDeadline]) -> list[str]:
    """Return the description of each overdue step."""
    return [step for deadline in deadlines if (step := deadline.overdue())]
