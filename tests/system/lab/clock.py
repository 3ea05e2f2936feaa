"""Set the time of day for a single daemon with libfaketime, because a container shares the clock of its host.

The daemon sees the same as when the system clock is set: the time of day jumps, and the monotonic clock continues.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.system.lab.machine import Machine

OFFSET_FILE = "/run/test-clock"
# NO_FAKE_STAT: times of files do not change when a clock is set
DROP_IN = f"""\
[Service]
Environment=LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1
Environment=FAKETIME_TIMESTAMP_FILE={OFFSET_FILE} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1
"""


@dataclass(frozen=True)
class Clock:
    """The time of day that a daemon of `machine` sees."""

    machine: Machine

    def set_ahead(self, seconds: int) -> None:
        """Set the clock to this many seconds ahead of the host's, or behind if negative."""
        draft = f"{OFFSET_FILE}.draft"
        self.machine.container.write(draft, f"{seconds:+d}\n")
        # Replace the file atomically: a daemon that reads a partial file exits.
        self.machine.container.path(draft).rename(self.machine.container.path(OFFSET_FILE))


def with_own_clock(machine: Machine, unit: str, undo: Callable[..., object]) -> Clock:
    """Restart a daemon with its own clock, and restart it without when the test ends."""
    clock = Clock(machine)
    clock.set_ahead(0)
    undo(machine.systemctl, "restart", unit)
    undo(machine.systemctl, "revert", unit)
    machine.drop_in(unit, DROP_IN)
    machine.systemctl("restart", unit)
    return clock
