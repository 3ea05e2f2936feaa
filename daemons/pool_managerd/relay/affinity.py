"""Which engine of a pool served a session last, and so has the session's prefix in its KV cache.

Bounded in number and time, and only a preference. A session is known by the mark that the queen sends, an engine by its
incarnation: the entry of an engine that is gone, or was announced anew, matches no engine and is overwritten by the
session's next turn.
"""

from collections import OrderedDict
from dataclasses import dataclass

LIFETIME_S = 600.0
"""The queen's default for keeping a session; by then the engine has other prefixes in its cache."""
LIMIT = 4096


@dataclass(frozen=True, slots=True)
class LastTurn:
    """The engine of a session's last turn, and when that was."""

    incarnation: int
    at_s: float


class Affinity:
    """At most `limit` sessions, each for `lifetime_s` seconds; the least recently used are dropped first.

    The caller passes the time, of a monotonic clock.
    """

    def __init__(self, limit: int = LIMIT, lifetime_s: float = LIFETIME_S) -> None:
        self._limit = limit
        self._lifetime_s = lifetime_s
        self._turns: OrderedDict[tuple[str, str], LastTurn] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    def last(self, pool_id: str, session: str | None, now_s: float) -> int | None:
        """Return the incarnation of the engine that served `session` last, if known."""
        self._expire(now_s)
        turn = self._turns.get((pool_id, session)) if session else None
        return turn.incarnation if turn else None

    def served(self, pool_id: str, session: str | None, incarnation: int, now_s: float) -> None:
        """Record which engine serves `session`."""
        if session:
            self._turns[pool_id, session] = LastTurn(incarnation, now_s)
            self._turns.move_to_end((pool_id, session))
            self._expire(now_s)

    def _expire(self, now_s: float) -> None:
        while self._turns and (len(self) > self._limit or self._oldest_s <= now_s - self._lifetime_s):
            self._turns.popitem(last=False)

    @property
    def _oldest_s(self) -> float:
        return next(iter(self._turns.values())).at_s
