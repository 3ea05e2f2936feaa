"""Waking a loop from other tasks."""

import trio


class Bell:
    """Rung by many, heard by one. Ringing while nobody waits is not lost; ringing twice is heard once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        """Wake whoever waits, or the next who comes to wait."""
        self._event.set()

    async def wait(self, within_s: float) -> bool:
        """Wait for a ring, at most `within_s` seconds; whether there was one. Resets the bell."""
        with trio.move_on_after(within_s):
            await self._event.wait()
        rung = self._event.is_set()
        if rung:
            self._event = trio.Event()
        return rung
