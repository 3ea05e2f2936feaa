"""The wanted state of each managed pool: loaded or not.

Set by the pools file and by running engines at the start, then by the local API. The pool's own task carries it out.
"""

from collections.abc import Awaitable, Callable

import trio

from engine_provisioner.failures import ProvisioningFailure
from llama_orch.telemetry import correlation


class Wanted:
    """Whether one pool is wanted in memory. The one owner of that state; to be used from one trio run only.

    `requests` counts calls of `load` and `unload`, also those that change nothing. `correlation_id` is that of the
    latest, if a request caused it.
    """

    def __init__(self, loaded: bool) -> None:
        self.loaded = loaded
        self.requests = 0
        self.correlation_id: str | None = None
        self._requested = trio.Event()

    def load(self) -> None:
        """Want the pool loaded. A failed pool is tried again at once."""
        self._set(True)

    def unload(self) -> None:
        """Want the pool unloaded."""
        self._set(False)

    def _set(self, loaded: bool) -> None:
        self.loaded = loaded
        self.requests += 1
        self.correlation_id = correlation.current.get()
        requested, self._requested = self._requested, trio.Event()
        requested.set()

    async def until(self, loaded: bool) -> None:
        """Return when the pool is wanted loaded, or unloaded."""
        while self.loaded is not loaded:
            await self._requested.wait()

    async def requested(self, after: int) -> None:
        """Return when `requests` differs from `after`."""
        while self.requests == after:
            await self._requested.wait()

    async def while_loaded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` until the pool is no longer wanted loaded; it is cancelled then.

        Raises what `work` raises, unless the pool is not wanted any more: why its engine ended does not matter then.
        """
        failure: ProvisioningFailure | OSError | None = None
        async with trio.open_nursery() as nursery:

            async def cancel_when_unwanted() -> None:
                await self.until(False)
                nursery.cancel_scope.cancel()

            nursery.start_soon(cancel_when_unwanted)
            try:
                await work()
            except (ProvisioningFailure, OSError) as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None and self.loaded:
            raise failure
