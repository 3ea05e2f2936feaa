"""Notifications to the service manager, sd_notify(3): readiness, status, watchdog, time extensions.

Uses systemd-python if it is installed, else sdnotify. Without a service manager the calls do nothing.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

Send = Callable[[str], object]


def _sender() -> Send:
    try:
        from systemd.daemon import notify
    except ImportError:
        from sdnotify import SystemdNotifier

        return SystemdNotifier().notify  # type: ignore[no-any-return]
    return notify  # type: ignore[no-any-return]


class Notifier:
    """Sends notifications. `send` takes one message of `NAME=value` lines."""

    def __init__(self, environ: Mapping[str, str] = os.environ, send: Send | None = None) -> None:
        self._deliver = send or (_sender() if environ.get("NOTIFY_SOCKET") else lambda _state: None)
        self.watchdog_s = watchdog_seconds(environ, os.getpid())
        """The manager's watchdog limit in seconds, or None without a watchdog."""

    def ready(self, status: str) -> None:
        """Send READY=1. Call it when all loops of the daemon have started."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self, status: str) -> None:
        """Send RELOADING=1 when a reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Send the text for `systemctl status`, as one line."""
        self._send(f"STATUS={_line(text)}")

    def stopping(self, status: str) -> None:
        """Send STOPPING=1 at the beginning of a graceful stop."""
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def extend(self, seconds: float) -> None:
        """Request `seconds` more for the start or stop (EXTEND_TIMEOUT_USEC)."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def watchdog(self) -> None:
        """Send WATCHDOG=1. Call it only if all core loops have made progress."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        """Send. A manager that is temporarily unreachable (daemon-reexec) must not stop the daemon."""
        try:
            self._deliver(message)
        except OSError as error:
            log.warning("cannot notify the service manager: %s", error.strerror or error)


def _line(text: str) -> str:
    return " ".join(text.split())


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """Return WATCHDOG_USEC in seconds if it applies to process `pid`, like sd_watchdog_enabled(3), else None."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    micros = environ.get("WATCHDOG_USEC", "")
    return int(micros) / 1e6 if micros.isascii() and micros.isdigit() and int(micros) > 0 else None
