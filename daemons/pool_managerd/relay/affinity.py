"""Which engine of a pool served a session last, and so has its KV cache. Bounded in number and in time, and never more
than a preference.

A session is known by the mark that the queen sends. An engine is known by its incarnation: one that is gone, or was
announced anew, is preferred to no other, and the session's next turn takes the place of what was known.
"""

from collections import OrderedDict
from dataclasses import dataclass

LIFETIME_S = 600.0
"""As long as a session is kept by default; the engine has others in its cache by then."""
LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Served:
    """By which incarnation, and when."""

    incarnation: int
    at_s: float


class Affinity:
    """At most `limit` sessions, each for `lifetime_s` seconds; those that are used longest ago go first.

    The time is the caller's, of a clock that never goes back.
    """

    def __init__(self, limit: int = LIMIT, lifetime_s: float = LIFETIME_S) -> None:
        self._limit = limit
        self._lifetime_s = lifetime_s
        self._served: OrderedDict[tuple[str, str], Served] = OrderedDict()

    def __len__(self) -> int:
        return len(self._served)

    def last(self, pool_id: str, session: str | None, now_s: float) -> int | None:
        """The incarnation of the engine that served `session` last, if that is known."""
        self._tidy(now_s)
        known = self._served.get((pool_id, session)) if session else None
        return known.incarnation if known else None

    def served(self, pool_id: str, session: str | None, incarnation: int, now_s: float) -> None:
        """Remember who serves `session`."""
        if session:
            self._served[pool_id, session] = Served(incarnation, now_s)
            self._served.move_to_end((pool_id, session))
            self._tidy(now_s)

    def _tidy(self, now_s: float) -> None:
        while self._served and (len(self) > self._limit or self._oldest_s <= now_s - self._lifetime_s):
            self._served.popitem(last=False)

    @property
    def _oldest_s(self) -> float:
        return next(iter(self._served.values())).at_s
