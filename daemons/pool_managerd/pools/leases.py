"""The requests that pass through the relay, by engine: one owner, who can also end them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from pool_managerd.pools.replica import Key


class Leases:
    """A lease is held for as long as an engine is asked; `changed` is called after each change of their number."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._held: dict[Key, dict[trio.CancelScope, Callable[[], None]]] = {}
        self._fewer = trio.Event()

    @contextmanager
    def held(self, key: Key, cut: Callable[[], None]) -> Iterator[trio.CancelScope]:
        """Hold a lease on the engine `key` in a scope that is cancelled where it must end early; `cut` is called just
        before, to end what does not heed a cancel."""
        with trio.CancelScope() as scope:
            self._held.setdefault(key, {})[scope] = cut
            self._changed()
            try:
                yield scope
            finally:
                self._give_back(key, scope)

    def _give_back(self, key: Key, scope: trio.CancelScope) -> None:
        del self._held[key][scope]
        if not self._held[key]:
            del self._held[key]
        fewer, self._fewer = self._fewer, trio.Event()
        fewer.set()
        self._changed()

    def of(self, key: Key) -> int:
        """How many are held on one engine."""
        return len(self._held.get(key, ()))

    def of_pool(self, pool_id: str) -> int:
        """How many are held on the engines of a pool."""
        return sum(len(leases) for key, leases in self._held.items() if key[0] == pool_id)

    async def none_left(self, pool_id: str) -> None:
        """Return when none is held on the pool."""
        while self.of_pool(pool_id):
            await self._fewer.wait()

    def end(self, pool_id: str) -> None:
        """End all that are held on the pool."""
        for key, leases in self._held.items():
            if key[0] == pool_id:
                for scope, cut in leases.items():
                    cut()
                    scope.cancel()
