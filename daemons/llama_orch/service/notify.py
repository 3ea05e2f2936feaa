"""Notifications to the service manager, sd_notify(3): readiness, status, watchdog, more time.

Uses systemd-python where it is installed and sdnotify elsewhere; without a service manager every call does
nothing, so that a daemon runs in the foreground just as well.
"""

import logging
import os
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
    """Speaks to the service manager; `send` takes one message of `NAME=value` lines."""

    def __init__(self, environ: Mapping[str, str] = os.environ, send: Send | None = None) -> None:
        self._deliver = send or (_sender() if environ.get("NOTIFY_SOCKET") else lambda _state: None)
        self.watchdog_s = watchdog_seconds(environ, os.getpid())
        """The manager's watchdog limit in seconds, or None where it keeps none."""

    def ready(self, status: str) -> None:
        """READY=1: every loop of the daemon has started."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def stopping(self, status: str) -> None:
        """STOPPING=1: a graceful stop has begun."""
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def extend(self, seconds: float) -> None:
        """Ask for `seconds` more before a start or stop counts as failed (EXTEND_TIMEOUT_USEC)."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def watchdog(self) -> None:
        """WATCHDOG=1: all core loops have moved since the last one."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        """Deliver; a manager that cannot be reached just now (re-executing itself) must not stop the daemon."""
        try:
            self._deliver(message)
        except OSError as error:
            log.warning("the service manager cannot be notified: %s", error.strerror or error)


def _line(text: str) -> str:
    return " ".join(text.split())


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """WATCHDOG_USEC in seconds if it is meant for process `pid`, as sd_watchdog_enabled(3) reads it."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    micros = environ.get("WATCHDOG_USEC", "")
    return int(micros) / 1e6 if micros.isascii() and micros.isdigit() and int(micros) > 0 else None
