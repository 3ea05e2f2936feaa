"""A small cache of derived values that follows the version of its source."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """Values that `compute` derives from a source.

    All entries are dropped when `version()` has changed and they are at least `min_age_s()` old, or when there are more
    than `max_entries`. A `min_age_s` above 0 trades freshness for fewer computations. `clock` is in seconds.
    """

    def __init__(
        self,
        compute: Callable[[K], V],
        *,
        version: Callable[[], int],
        min_age_s: Callable[[], float],
        max_entries: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compute = compute
        self._version = version
        self._min_age_s = min_age_s
        self._max_entries = max_entries
        self._clock = clock
        self._entries: dict[K, V] = {}
        self._filled_version, self._filled_at = 0, float("-inf")

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V:
        version = self._version()
        if version != self._filled_version and self._clock() - self._filled_at >= self._min_age_s():
            self._entries.clear()
        found = self._entries.get(key)
        if found is None:
            if len(self._entries) >= self._max_entries:
                self._entries.clear()
            if not self._entries:
                self._filled_version, self._filled_at = version, self._clock()
            found = self._entries[key] = self._compute(key)
        return found
