"""What a decision to load or unload depends on: pools, memory, waiting tasks, and the rules. Plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from queen_rbee.pools.source_reports import PoolKey


class Phase(Enum):
    """Where a pool is in its life. PREPARING: engine or model is being fetched. FAILED: engine-provisioner tries again
    by itself."""

    PREPARING = "preparing"
    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    FAILED = "failed"


@dataclass(frozen=True)
class Resident:
    """A pool that can be loaded on demand. Pools of one `machine` share its memory.

    `need` is what it occupies on each device. `used_at`, `loaded_at` and `loading_at`, when its load began, are on the
    same clock as `now`; `served` is whether it had a task since it was loaded. `load_s` is how long its last load took,
    0 if that is not known. `keep_alive_s`: None for ever. `closed`: it accepts no tasks at present, as when it is
    drained. `wanted`: an operator asked for it.
    """

    key: PoolKey
    machine: str
    phase: Phase
    need: Mapping[str, int] = field(default_factory=dict)
    leases: int = 0
    used_at: float = -inf
    loaded_at: float = -inf
    loading_at: float = inf
    slots: int = 1
    served: bool = False
    keep_alive_s: float | None = 300.0
    load_s: float = 0.0
    pinned: bool = False
    group: str | None = None
    exclusive: bool = False
    closed: bool = False
    wanted: bool = False

    @property
    def in_memory(self) -> bool:
        return self.phase in (Phase.LOADING, Phase.LOADED, Phase.UNLOADING)


@dataclass(frozen=True)
class Budget:
    """A device's memory in bytes; `free` as the machine reported it last."""

    total: int
    free: int


@dataclass(frozen=True)
class Wait:
    """Tasks that wait for one of these pools, the first of them since `since`. The pools are those that could serve.

    `promised`: no task waits, but a client that did not want to wait was told when to come back.
    """

    pools: frozenset[PoolKey]
    since: float
    promised: bool = False


@dataclass(frozen=True)
class Rules:
    """`residence_s`: a pool is not unloaded for others earlier than this, nor before `residence_loads` times as long as
    its load took, unless it is idle and has served. `settle_s`: how long a machine's free memory may lag behind."""

    patience_s: float = 10.0
    residence_s: float = 10.0
    residence_loads: float = 3.0
    settle_s: float = 3.0


RULES = Rules()


@dataclass(frozen=True)
class Situation:
    """All that a plan depends on. `budgets` by machine and device; `settled_at`: when each machine's last load or
    unload ended. `waits` are in the order in which they are served."""

    residents: Sequence[Resident]
    budgets: Mapping[str, Mapping[str, Budget]]
    waits: Sequence[Wait]
    now: float
    settled_at: Mapping[str, float] = field(default_factory=dict)
