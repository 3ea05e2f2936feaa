"""Wait for the first of several conditions."""

from collections.abc import Awaitable, Callable

import trio


async def wait_any(*waits: Callable[[], Awaitable[None]]) -> None:
    """Return as soon as one of `waits` returns; the others are cancelled."""

    async def cancel_after(wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for wait in waits:
            nursery.start_soon(cancel_after, wait)
