"""The requests that pass through the relay, by engine. The one owner of leases, which can also end them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from pool_managerd.pools.replica import Key


class Leases:
    """One lease per request to an engine. `changed` is called with the pool after each change of their number."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._held: dict[Key, dict[trio.CancelScope, Callable[[], None]]] = {}
        self._released = trio.Event()
        self.taken = 0
        """How many leases there have been."""

    @contextmanager
    def held(self, key: Key, abort: Callable[[], None]) -> Iterator[trio.CancelScope]:
        """Hold a lease on the engine `key`, in a scope that is cancelled if the lease must end early.

        `abort` is called just before, to end what is shielded from the cancellation.
        """
        with trio.CancelScope() as scope:
            self._held.setdefault(key, {})[scope] = abort
            self.taken += 1
            self._changed(key[0])
            try:
                yield scope
            finally:
                self._release(key, scope)

    def _release(self, key: Key, scope: trio.CancelScope) -> None:
        del self._held[key][scope]
        if not self._held[key]:
            del self._held[key]
        released, self._released = self._released, trio.Event()
        released.set()
        self._changed(key[0])

    def of(self, key: Key) -> int:
        """Return the number of leases on one engine."""
        return len(self._held.get(key, ()))

    def of_pool(self, pool_id: str) -> int:
        """Return the number of leases on the engines of a pool."""
        return sum(len(leases) for key, leases in self._held.items() if key[0] == pool_id)

    async def none_left(self, pool_id: str) -> None:
        """Return when there is no lease on the pool."""
        while self.of_pool(pool_id):
            await self._released.wait()

    def end(self, pool_id: str) -> None:
        """End all leases on the pool."""
        for key, leases in self._held.items():
            if key[0] == pool_id:
                for scope, abort in leases.items():
                    abort()
                    scope.cancel()
