"""What each source reports about pools, and which report is in effect. Plain data without I/O."""

from collections import Counter
from dataclasses import dataclass, field

from llama_orch.contracts.pools import PoolStatus

PoolKey = tuple[str, str]
"""The pool id and the node id, "" in HOME_PROFILE: several nodes may have a pool with the same id."""


def pool_key(pool: PoolStatus) -> PoolKey:
    return pool.pool_id, pool.node_id or ""


@dataclass(frozen=True)
class PoolReport:
    """A pool as one source reports it. The report with the lowest rank is in effect."""

    rank: int
    pool: PoolStatus


@dataclass
class SourceReports:
    """The reports of all sources. `effective` has each pool's report in effect, `ready` the ready pools by pool id."""

    effective: dict[PoolKey, PoolStatus] = field(default_factory=dict)
    ready: Counter[str] = field(default_factory=Counter)
    _by_pool: dict[PoolKey, dict[str, PoolReport]] = field(default_factory=dict)
    _pool_counts: Counter[str] = field(default_factory=Counter)
    _by_source: dict[str, dict[PoolKey, PoolReport]] = field(default_factory=dict)

    def replace(self, source: str, rank: int, pools: tuple[PoolStatus, ...]) -> list[PoolKey]:
        """Replace everything `source` reported. Return the pools whose effective report changed."""
        after = {pool_key(pool): PoolReport(rank, pool) for pool in pools}
        before = self._by_source.pop(source, {})
        if after:
            self._by_source[source] = after
        touched = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        for key in touched:
            reports = self._by_pool.setdefault(key, {})
            if key in after:
                reports[source] = after[key]
            else:
                del reports[source]
        return [key for key in touched if self._update_effective(key)]

    def source_of(self, key: PoolKey) -> str | None:
        """Return the source whose report of the pool is in effect."""
        reports = self._by_pool.get(key, {})
        return min(reports, key=lambda source: reports[source].rank, default=None)

    def _update_effective(self, key: PoolKey) -> bool:
        source = self.source_of(key)
        before = self.effective.get(key)
        if source is None:
            del self._by_pool[key]
            self.effective.pop(key, None)
        else:
            self.effective[key] = self._by_pool[key][source].pool
        self._count(key[0], before, self.effective.get(key))
        return before != self.effective.get(key)

    def _count(self, pool_id: str, before: PoolStatus | None, after: PoolStatus | None) -> None:
        """Update the counters; an id without pools has no entry."""
        self._pool_counts[pool_id] += (after is not None) - (before is not None)
        self.ready[pool_id] += bool(after and after.ready) - bool(before and before.ready)
        if not self._pool_counts[pool_id]:
            del self._pool_counts[pool_id], self.ready[pool_id]
