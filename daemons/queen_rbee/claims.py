"""Who says what of each pool, and who is believed. Plain data without I/O."""

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
    """`believed` has each pool as the best source knows it."""

    believed: dict[PoolKey, PoolStatus] = field(default_factory=dict)
    _by_pool: dict[PoolKey, dict[str, Claim]] = field(default_factory=dict)
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
        if source is None:
            del self._by_pool[key]
            return self.believed.pop(key, None) is not None
        before, pool = self.believed.get(key), self._by_pool[key][source].pool
        self.believed[key] = pool
        return before != pool
