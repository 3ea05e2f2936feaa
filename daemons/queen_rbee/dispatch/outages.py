"""How long waiting tasks have had no replica that serves them. No I/O; times are trio's clock in seconds."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

L = TypeVar("L", bound=Hashable)

MIN_RETRY_S, MAX_RETRY_S = 5.0, 300.0


@dataclass
class Outages(Generic[L]):
    """When each lane of the queue lost its last serving replica. Lanes that are served are not listed.

    A task is given up after it has waited `limit_s` seconds in a lane without a serving replica.
    """

    limit_s: float
    _since: dict[L, float] = field(default_factory=dict)

    def update(self, lanes: Mapping[L, bool], now: float) -> None:
        """`lanes` holds every lane with waiting tasks, and whether a replica serves it now."""
        self._since = {lane: self._since.get(lane, now) for lane, served in lanes.items() if not served}

    @property
    def unserved(self) -> Collection[L]:
        return self._since.keys()

    def give_up_at(self, lane: L, submitted_at: float) -> float:
        """Return when a task of `lane` is given up; infinity if the lane is served."""
        since = self._since.get(lane)
        return float("inf") if since is None else max(since, submitted_at) + self.limit_s

    def retry_s(self, lane: L, now: float) -> float:
        """Return in how many seconds to retry: as long as the outage has lasted, the best guess there is."""
        lasted_s = now - self._since.get(lane, now)
        return min(max(lasted_s, MIN_RETRY_S), MAX_RETRY_S)
