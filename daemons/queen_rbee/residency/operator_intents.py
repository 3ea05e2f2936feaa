"""What operators want of pools, until it has happened or they no longer want it. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.residency.actions import Unload
from queen_rbee.residency.situation import Phase, Resident

IntentKind = Literal["load", "unload"]


@dataclass
class OperatorIntents:
    """`wanted`: pools to be loaded; `unwanted`: pools to be unloaded, and why; `closed`: pools that are not loaded."""

    wanted: set[PoolKey] = field(default_factory=set)
    unwanted: dict[PoolKey, str] = field(default_factory=dict)
    closed: set[PoolKey] = field(default_factory=set)

    def load(self, key: PoolKey) -> None:
        self.unwanted.pop(key, None)
        self.wanted.add(key)

    def unload(self, key: PoolKey, reason: str) -> None:
        self.wanted.discard(key)
        self.unwanted[key] = reason

    def close(self, key: PoolKey, *, closed: bool) -> None:
        (self.closed.add if closed else self.closed.discard)(key)

    def forget(self, key: PoolKey, what: IntentKind | None = None) -> None:
        """Drop an intent to load or to unload the pool; without `what`, either."""
        if what != "unload":
            self.wanted.discard(key)
        if what != "load":
            self.unwanted.pop(key, None)

    def discard_done(self, residents: Iterable[Resident]) -> None:
        """Drop what has happened."""
        for each in residents:
            if each.phase in (Phase.LOADED, Phase.FAILED):
                self.wanted.discard(each.key)
            if each.phase not in (Phase.LOADED, Phase.LOADING, Phase.UNLOADING):
                self.unwanted.pop(each.key, None)

    def unloads(self, residents: Iterable[Resident]) -> list[Unload]:
        """Return the unloads that are wanted and due."""
        loaded = (each.key for each in residents if each.phase in (Phase.LOADED, Phase.LOADING))
        return [Unload(key, "request", self.unwanted[key]) for key in loaded if key in self.unwanted]
