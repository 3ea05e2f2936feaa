"""The time of day as one daemon of a machine sees it: libfaketime, since the clock itself is that of this host.

What the daemon sees is what it would see if somebody set the clock: the time of day jumps while it runs, and the
monotonic clock goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.system.lab.machine import Machine

AHEAD_FILE = "/run/test-clock"
# files keep the times that they have, as they do where a clock is set
DROP_IN = f"""\
[Service]
Environment=LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1
Environment=FAKETIME_TIMESTAMP_FILE={AHEAD_FILE} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1
"""


@dataclass(frozen=True)
class Clock:
    """The time of day that a daemon of `machine` sees."""

    machine: Machine

    def set_ahead(self, seconds: int) -> None:
        """From now on it is so far ahead of this host's; a negative number is behind."""
        draft = f"{AHEAD_FILE}.draft"
        self.machine.container.write(draft, f"{seconds:+d}\n")
        # a daemon that finds half a file ends
        self.machine.container.path(draft).rename(self.machine.container.path(AHEAD_FILE))


def clock_of_its_own(machine: Machine, unit: str, undo: Callable[..., object]) -> Clock:
    """A clock for a daemon, which is restarted for it, and again when the test ends."""
    clock = Clock(machine)
    clock.set_ahead(0)
    undo(machine.systemctl, "restart", unit)
    undo(machine.systemctl, "revert", unit)
    machine.drop_in(unit, DROP_IN)
    machine.systemctl("restart", unit)
    return clock
