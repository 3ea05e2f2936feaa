"""SIGTERM and SIGHUP, heeded where something is to be done before the process ends of them."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from orchctl.waiting import meanwhile

ENDING = (signal.SIGTERM, signal.SIGHUP)


@asynccontextmanager
async def heeding() -> AsyncIterator[None]:
    """Either signal cancels the block, and ends the process behind it as if it had come there.

    One that is ignored, as nohup(1) has it, is ignored here too.
    """
    heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    if not heeded:
        yield
        return
    come: list[int] = []
    with trio.open_signal_receiver(*heeded) as signals, trio.CancelScope() as scope:
        async with meanwhile(_cancel, scope, signals, come):
            yield
    for number in come:
        signal.raise_signal(number)


async def _cancel(scope: trio.CancelScope, signals: AsyncIterator[int], come: list[int]) -> None:
    come.append(await anext(signals))
    scope.cancel()
