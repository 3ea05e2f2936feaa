"""Who was told when to come back, and the places that are kept for them: what makes Retry-After true.

Every refusal gets the next place in the future that nobody was promised yet, at the rate at which places come free. A
newcomer who was promised nothing gets in only where that leaves room for those whose time has come, and for a few of
those whose time comes next; otherwise those that obey would be overtaken by those that do not. Plain values; the caller
passes the clock, in seconds.
"""

from collections import deque
from collections.abc import Hashable

GRACE_S = 3.0
"""A place is kept so long after its time: Retry-After has whole seconds, and a client needs a moment."""
AHEAD = 8
"""Of so many places one is kept for those whose time comes next: slots that began together come free together, and
meanwhile those that were told an even pace keep coming. (Simulated with 4 slots and room for 64: of those that come at
the very moment 1.00 get in, without it 0.81.)"""
KEPT = 10_000
LONGEST_S = 3600.0


class Promises:
    """Promised places in the order of their times. A client is known by whatever it says again: `key`."""

    def __init__(self, grace_s: float = GRACE_S, kept: int = KEPT) -> None:
        self._grace_s = grace_s
        self._kept = kept
        self._future: deque[tuple[float, Hashable]] = deque()
        self._due: dict[int, tuple[float, Hashable]] = {}
        self._by_key: dict[Hashable, deque[int]] = {}
        self._last = 0.0
        self._number = 0

    def __len__(self) -> int:
        return len(self._future) + len(self._due)

    def due(self, now: float) -> int:
        """How many may come at any moment: their time has come."""
        self._turn(now)
        return len(self._due)

    def kept_free(self, capacity: int, now: float) -> int:
        """How many of `capacity` places a newcomer must leave to those that were told to come."""
        due = self.due(now)
        return due + min(len(self._future), -(-capacity // AHEAD))

    def _turn(self, now: float) -> None:
        """Promises whose time has come become due, those that nobody has claimed in time are forgotten."""
        while self._future and self._future[0][0] <= now:
            when, key = self._future.popleft()
            self._number += 1
            self._due[self._number] = (when, key)
            self._by_key.setdefault(key, deque()).append(self._number)
        while self._due and (oldest := next(iter(self._due.values()))) and oldest[0] + self._grace_s < now:
            self._forget(oldest[1])

    def _forget(self, key: Hashable) -> None:
        numbers = self._by_key[key]
        del self._due[numbers.popleft()]
        if not numbers:
            del self._by_key[key]

    def claim(self, key: Hashable, now: float) -> bool:
        """Whether `key` comes when it was told to; its place is its own then."""
        self._turn(now)
        if key not in self._by_key:
            return False
        self._forget(key)
        return True

    def promise(self, key: Hashable, now: float, gap_s: float) -> float:
        """In how many seconds `key` shall come back, where places come free every `gap_s` seconds."""
        self._turn(now)
        when = max(self._last, now) + gap_s
        if when - now > LONGEST_S or len(self) >= self._kept:
            return LONGEST_S
        self._last = when
        self._future.append((when, key))
        return when - now

    def admits(self, depth: int, capacity: int, at_least: int, now: float) -> bool:
        """Whether a newcomer without a promise may have one of the free places of a queue that is `depth` long.

        Slots must not idle for the sake of promises: below `at_least` waiting tasks everybody is welcome.
        """
        return depth < capacity and (depth < at_least or depth + self.kept_free(capacity, now) < capacity)
