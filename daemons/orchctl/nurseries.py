"""Structured concurrency for commands: background tasks, signals, and exceptions without groups."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVarTuple, Unpack

import trio

TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGHUP)

Ts = TypeVarTuple("Ts")


@contextmanager
def unwrap_groups() -> Iterator[None]:
    """Raise the first exception of a group, so that a Ctrl-C inside a nursery arrives as KeyboardInterrupt."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


@asynccontextmanager
async def background(function: Callable[[Unpack[Ts]], Awaitable[None]], *arguments: *Ts) -> AsyncIterator[None]:
    """Run `function`, which must not raise, beside the block; cancel it when the block ends."""
    with unwrap_groups():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(function, *arguments)
            yield
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def cancel_on_termination() -> AsyncIterator[None]:
    """Cancel the block on SIGTERM or SIGHUP, then end the process by that signal.

    A signal that is ignored, as under nohup(1), stays ignored.
    """
    handled = [number for number in TERMINATION_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if not handled:
        yield
        return
    received: list[int] = []
    with trio.open_signal_receiver(*handled) as signals, trio.CancelScope() as scope:
        async with background(_cancel_on_signal, scope, signals, received):
            yield
    for number in received:
        signal.raise_signal(number)


async def _cancel_on_signal(scope: trio.CancelScope, signals: AsyncIterator[int], received: list[int]) -> None:
    received.append(await anext(signals))
    scope.cancel()
