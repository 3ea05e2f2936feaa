"""Clients that did not want to wait for a load, and were told when to come back. No I/O; times are trio's clock.

Until then their model is loaded, and kept, as if they waited.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

L = TypeVar("L", bound=Hashable)

GRACE_S = 10.0
"""How long a model is kept for a client that is late."""
LIMIT = 256
"""The most lanes with promises; a further one takes the place of the one that ends first."""


@dataclass
class Promises(Generic[L]):
    """The lanes with such clients: since when, and until when. One that comes back again keeps its place."""

    _promised: dict[L, tuple[float, float]] = field(default_factory=dict)

    def add(self, lane: L, since: float, retry_at: float) -> None:
        """Promise a client that has asked at `since` that its model is loaded at `retry_at`."""
        before = self._promised.get(lane, (since, retry_at))
        if lane not in self._promised and len(self._promised) >= LIMIT:
            del self._promised[min(self._promised, key=lambda each: self._promised[each][1])]
        self._promised[lane] = min(since, before[0]), max(retry_at + GRACE_S, before[1])

    def current(self, now: float) -> Iterator[tuple[L, float]]:
        """Forget the promises that have ended; iterate over the others, each with its beginning."""
        self._promised = {lane: times for lane, times in self._promised.items() if times[1] > now}
        return ((lane, since) for lane, (since, _until) in self._promised.items())

    @property
    def next_end(self) -> float:
        """When the next promise ends; infinity if there is none."""
        return min((until for _since, until in self._promised.values()), default=float("inf"))
