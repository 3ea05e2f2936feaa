"""What a plan consists of. Plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from queen_rbee.metrics import UnloadCause
from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.residency.situation import Resident, Wait


@dataclass(frozen=True)
class Load:
    """Load this pool."""

    key: PoolKey
    reason: str


@dataclass(frozen=True)
class Unload:
    """Send this pool no new tasks, and unload it once it has none. `room_for`: the pools that need its memory."""

    key: PoolKey
    cause: UnloadCause
    reason: str
    room_for: frozenset[PoolKey] = frozenset()


@dataclass(frozen=True)
class Plan:
    """What to do now, and when to look again if nothing changes before. `blocked` says why a wait is not served."""

    actions: tuple[Load | Unload, ...] = ()
    due_at: float = inf
    blocked: Mapping[Wait, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """How a bundle of pools gets into memory: after `victims` are unloaded, of whose bytes there are `evicted`.

    `wait_until` is when to look again if it cannot be done now; `reason` says why.
    """

    load: tuple[Resident, ...] = ()
    victims: tuple[Resident, ...] = ()
    evicted: int = 0
    wait_until: float | None = None
    reason: str = ""

    @property
    def possible(self) -> bool:
        return self.wait_until is None
