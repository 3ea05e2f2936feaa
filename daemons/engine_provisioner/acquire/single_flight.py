"""One pool fetches what several want; the others wait for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class SingleFlight:
    """Who is making what. Whoever waited looks again whether it is there, since its maker may have failed."""

    def __init__(self) -> None:
        self._making: dict[str, trio.Event] = {}

    @asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[None]:
        """The block runs while nobody else makes `what`."""
        while what in self._making:
            await self._making[what].wait()
        made = self._making[what] = trio.Event()
        try:
            yield
        finally:
            del self._making[what]
            made.set()
