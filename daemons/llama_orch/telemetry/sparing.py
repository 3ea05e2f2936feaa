"""What anybody can cause at will is logged sparingly: a line a minute for each who does, and not for all too many."""

import trio

INTERVAL_S = 60.0
LIMIT = 64


class Sparing:
    """Remembers for a minute for whom there was a line."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def due(self, who: str) -> bool:
        """Whether there may be a line for `who` now; it counts as written."""
        now = trio.current_time()
        self._told = {known: since for known, since in self._told.items() if now - since < INTERVAL_S}
        if who in self._told or len(self._told) >= LIMIT:
            return False
        self._told[who] = now
        return True
