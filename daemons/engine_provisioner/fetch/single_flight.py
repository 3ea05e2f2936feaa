"""Mutual exclusion by key, so that two pools do not fetch the same thing at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class SingleFlight:
    """The keys in use. After waiting, a caller must check whether the result exists: the holder may have failed."""

    def __init__(self) -> None:
        self._held: dict[str, trio.Event] = {}

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold `key` for the duration of the block; wait while another task holds it."""
        while key in self._held:
            await self._held[key].wait()
        released = self._held[key] = trio.Event()
        try:
            yield
        finally:
            del self._held[key]
            released.set()
