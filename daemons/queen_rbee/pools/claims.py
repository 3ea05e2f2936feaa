"""Who says what of each pool, and who is believed. Plain data without I/O."""

from collections import Counter
from dataclasses import dataclass, field

from llama_orch.contracts.pools import PoolStatus

PoolKey = tuple[str, str]
"""A pool's id, and its node or "" where there are none: several nodes may have a pool of one id."""


def pool_key(pool: PoolStatus) -> PoolKey:
    """What tells `pool` from all others."""
    return pool.pool_id, pool.node_id or ""


@dataclass(frozen=True)
class Claim:
    """What one source says of a pool. A lower rank is believed first."""

    rank: int
    pool: PoolStatus


@dataclass
class Claims:
    """`believed` has each pool as the best source knows it; `ready`, by pool id, how many of them are."""

    believed: dict[PoolKey, PoolStatus] = field(default_factory=dict)
    ready: Counter[str] = field(default_factory=Counter)
    _by_pool: dict[PoolKey, dict[str, Claim]] = field(default_factory=dict)
    _known: Counter[str] = field(default_factory=Counter)
    _by_source: dict[str, dict[PoolKey, Claim]] = field(default_factory=dict)

    def replace(self, source: str, rank: int, pools: tuple[PoolStatus, ...]) -> list[PoolKey]:
        """`source` knows just these pools now; the pools of which something else is believed than before."""
        after = {pool_key(pool): Claim(rank, pool) for pool in pools}
        before = self._by_source.pop(source, {})
        if after:
            self._by_source[source] = after
        touched = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        for key in touched:
            claims = self._by_pool.setdefault(key, {})
            if key in after:
                claims[source] = after[key]
            else:
                del claims[source]
        return [key for key in touched if self._settle(key)]

    def source_of(self, key: PoolKey) -> str | None:
        """The source that is believed about a pool."""
        claims = self._by_pool.get(key, {})
        return min(claims, key=lambda source: claims[source].rank, default=None)

    def _settle(self, key: PoolKey) -> bool:
        source = self.source_of(key)
        before = self.believed.get(key)
        if source is None:
            del self._by_pool[key]
            self.believed.pop(key, None)
        else:
            self.believed[key] = self._by_pool[key][source].pool
        self._count(key[0], before, self.believed.get(key))
        return before != self.believed.get(key)

    def _count(self, pool_id: str, before: PoolStatus | None, after: PoolStatus | None) -> None:
        """The last pool of an id takes its count with it."""
        self._known[pool_id] += (after is not None) - (before is not None)
        self.ready[pool_id] += bool(after and after.ready) - bool(before and before.ready)
        if not self._known[pool_id]:
            del self._known[pool_id], self.ready[pool_id]
