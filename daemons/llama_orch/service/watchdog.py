"""The watchdog proves progress: it pings only when every core loop has moved since the last ping.

A thread or a bare timer would go on pinging for a daemon whose dispatcher hangs; here such a daemon is
restarted by systemd. Owns the pulses of the loops and the ping task.
"""

import logging
from dataclasses import dataclass

import trio

from llama_orch.service.notify import Notifier

log = logging.getLogger(__name__)

UNWATCHED_INTERVAL_S = 5.0


@dataclass
class Pulse:
    """A loop's sign of life. The loop calls `beat()` each turn and waits at most `interval_s` between turns."""

    name: str
    interval_s: float
    count: int = 0
    retired: bool = False

    def beat(self) -> None:
        """One turn of the loop is done."""
        self.count += 1

    def retire(self) -> None:
        """End the watch: the loop has ended as it should."""
        self.retired = True

    async def wait(self, event: trio.Event) -> None:
        """Beat, then wait for `event`, but never longer than the watchdog allows."""
        self.beat()
        with trio.move_on_after(self.interval_s):
            await event.wait()


class Watchdog:
    """Hands out pulses and pings the service manager while all of them go on.

    A loop must beat at least once in `ping_s`, a third of the manager's limit, so that one late turn does
    not cost a restart.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._pulses: list[Pulse] = []
        self.ping_s = notifier.watchdog_s / 3 if notifier.watchdog_s else None

    def pulse(self, name: str) -> Pulse:
        """A pulse for the core loop `name`; from now on its silence stops the pings."""
        pulse = Pulse(name, self.ping_s / 3 if self.ping_s else UNWATCHED_INTERVAL_S)
        self._pulses.append(pulse)
        return pulse

    async def run(self) -> None:
        """Ping for ever; returns at once where the manager keeps no watchdog."""
        if self.ping_s is None:
            return
        seen: dict[str, int] = {}
        while True:
            self._pulses = [pulse for pulse in self._pulses if not pulse.retired]
            silent = [pulse.name for pulse in self._pulses if seen.get(pulse.name) == pulse.count]
            if silent:
                log.error("watchdog: no progress in %s; not pinging", ", ".join(silent))
            else:
                seen = {pulse.name: pulse.count for pulse in self._pulses}
                self._notifier.watchdog()
            await trio.sleep(self.ping_s)
