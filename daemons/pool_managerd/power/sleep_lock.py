"""An inhibitor lock of systemd-logind, which keeps others from suspending this machine.

The interface is org.freedesktop.login1(5). The lock lasts until its file descriptor is closed, at the latest when this
process ends. A service needs a polkit rule for it, which the package has.
"""

import os

from jeepney import FileDescriptor

from llama_orch.service.bus import BusError, system_bus
from llama_orch.telemetry.events.power import INHIBITOR_REFUSED
from llama_orch.telemetry.records import emit

LOGIND = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
KIND = "sleep"
"""Blocks every suspension, also that of an idle desktop. A lock of the kind `idle` would also keep its screen on, and
logind 252 asks polkit about a lock of both kinds as if it were one of the lid switch."""


class SleepLock:
    """Owns the lock. `hold` and `release` may be called at any time, by one task."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._tried = False
        self._problem = ""

    async def hold(self, why: str) -> None:
        """Take the lock if it is not held. A failure is reported once, and tried again after the next `release`."""
        if self._tried:
            return
        self._tried = True
        try:
            async with system_bus(fds=True) as bus:
                (found,) = await bus.call(*LOGIND, "Inhibit", "ssss", (KIND, "pool-managerd", why, "block"))
        except (BusError, ValueError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                emit(INHIBITOR_REFUSED, reason=self._problem)
            return
        self._problem = ""
        if isinstance(found, FileDescriptor):
            self._fd = found.to_raw_fd()

    def release(self) -> None:
        self._tried = False
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
