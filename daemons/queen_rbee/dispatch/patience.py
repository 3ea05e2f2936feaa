"""How long waiting tasks have had no replica that serves. Plain data without I/O; times are trio's clock in seconds."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

L = TypeVar("L", bound=Hashable)

SOONEST_S, LATEST_S = 5.0, 300.0


@dataclass
class Patience(Generic[L]):
    """For each lane of the queue (see `admission`) since when nothing serves it; a lane that is served is not in it.

    A task that has waited for `limit_s` seconds while nothing served its lane is given up.
    """

    limit_s: float
    _since: dict[L, float] = field(default_factory=dict)

    def look(self, lanes: Mapping[L, bool], now: float) -> None:
        """`lanes` are all that have waiting tasks, each with whether a replica serves it now."""
        self._since = {lane: self._since.get(lane, now) for lane, served in lanes.items() if not served}

    @property
    def unserved(self) -> Iterable[L]:
        """The lanes that nothing serves."""
        return self._since

    def until(self, lane: L, submitted_at: float) -> float:
        """When a task of `lane` is given up; infinity where its lane is served."""
        since = self._since.get(lane)
        return float("inf") if since is None else max(since, submitted_at) + self.limit_s

    def retry_s(self, lane: L, now: float) -> float:
        """When to come back to a lane that nothing serves: nobody knows when that ends, and of what has lasted for a
        time the best guess is that it lasts as long again."""
        lasted = now - self._since.get(lane, now)
        return min(max(lasted, SOONEST_S), LATEST_S)
