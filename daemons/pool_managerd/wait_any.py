"""Waiting for the first of several things."""

from collections.abc import Awaitable, Callable

import trio


async def wait_any(*waits: Callable[[], Awaitable[None]]) -> None:
    """Return as soon as one of `waits` does."""

    async def end_with(wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for wait in waits:
            nursery.start_soon(end_with, wait)
