"""The watchdog: pings systemd only if every core loop has made progress since the last ping.

A thread or a plain timer would keep pinging while the dispatcher hangs; with this watchdog systemd restarts such a
daemon. Owns the pulses of the loops and the ping task.
"""

import logging
from dataclasses import dataclass

import trio

from llama_orch.service.notify import Notifier

log = logging.getLogger(__name__)

UNWATCHED_INTERVAL_S = 5.0


@dataclass
class Pulse:
    """A loop's progress counter. The loop calls `beat()` each turn and waits at most `interval_s` between turns."""

    name: str
    interval_s: float
    count: int = 0
    retired: bool = False

    def beat(self) -> None:
        self.count += 1

    def retire(self) -> None:
        """Stop watching the loop, which has ended regularly."""
        self.retired = True

    async def wait(self, event: trio.Event) -> None:
        """Beat, then wait for `event` for at most `interval_s` seconds."""
        self.beat()
        with trio.move_on_after(self.interval_s):
            await event.wait()


class Watchdog:
    """Creates pulses, and pings the service manager while all of them beat.

    A loop must beat at least once per `ping_s`, a third of the manager's limit, so that one late turn does not cause a
    restart.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._pulses: list[Pulse] = []
        self.ping_s = notifier.watchdog_s / 3 if notifier.watchdog_s else None

    def pulse(self, name: str) -> Pulse:
        """Return a new pulse for the core loop `name`. From now on the pings stop if it does not beat."""
        pulse = Pulse(name, self.ping_s / 3 if self.ping_s else UNWATCHED_INTERVAL_S)
        self._pulses.append(pulse)
        return pulse

    async def run(self) -> None:
        """Ping in a loop. Return at once if the manager has no watchdog."""
        if self.ping_s is None:
            return
        seen: dict[str, int] = {}
        while True:
            self._pulses = [pulse for pulse in self._pulses if not pulse.retired]
            stalled = [pulse.name for pulse in self._pulses if seen.get(pulse.name) == pulse.count]
            if stalled:
                log.error("watchdog: no progress in %s; not pinging", ", ".join(stalled))
            else:
                seen = {pulse.name: pulse.count for pulse in self._pulses}
                self._notifier.watchdog()
            await trio.sleep(self.ping_s)
