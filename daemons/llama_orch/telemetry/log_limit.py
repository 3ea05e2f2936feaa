"""Limit log lines that clients can cause at will: one per minute and source, with a limit on sources."""

import trio

INTERVAL_S = 60.0
LIMIT = 64


class LogLimit:
    """Allows one line per INTERVAL_S for each source, and for at most LIMIT sources per interval."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def due(self, source: str) -> bool:
        """Return whether a line for `source` may be logged now. True counts as logged."""
        now = trio.current_time()
        self._logged = {known: since for known, since in self._logged.items() if now - since < INTERVAL_S}
        if source in self._logged or len(self._logged) >= LIMIT:
            return False
        self._logged[source] = now
        return True
