"""Wake a loop from other tasks."""

import trio


class Bell:
    """A wake-up signal from many tasks to one. Rings are kept until the next wait; several rings count as one."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, within_s: float) -> bool:
        """Wait for a ring for at most `within_s` seconds, and reset the bell. Return whether it rang."""
        with trio.move_on_after(within_s):
            await self._event.wait()
        rung = self._event.is_set()
        if rung:
            self._event = trio.Event()
        return rung
