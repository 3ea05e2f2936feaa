"""Where a request to /v1 stands while it waits: its connection does not tell, so the queen is asked beside it."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVarTuple, Unpack

import trio

from llama_orch.contracts.tasks import TaskList
from orchctl.client import QueenClient, below, understood
from orchctl.errors import CommandError
from orchctl.output import StatusLine
from orchctl.tables import place

FIRST_S = 0.5
POLL_S = 2.0
"""How often the queen is asked, in seconds; most answers begin before the first time."""
PATH = below("/v2/tasks", state="queued", limit=500)
Ts = TypeVarTuple("Ts")


@asynccontextmanager
async def meanwhile(act: Callable[[Unpack[Ts]], Awaitable[None]], *arguments: *Ts) -> AsyncIterator[None]:
    """`act`, which raises nothing, runs beside the block and ends with it; what the block raises comes as it is."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act, *arguments)
            yield
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def tell_place(queen: QueenClient, request_id: str, line: StatusLine, waits: Callable[[], bool]) -> None:
    """Keep `line` at the place in the queue of the task with this correlation id, as long as it `waits`."""
    if not line.watched:
        return
    await trio.sleep(FIRST_S)
    while waits():
        found = await _place(queen, request_id)
        if found and waits():  # it may have begun meanwhile
            line.show(found)
        await trio.sleep(POLL_S)


async def _place(queen: QueenClient, request_id: str) -> str | None:
    try:
        tasks = understood(TaskList, await queen.get(PATH)).tasks
    except CommandError:  # the request itself tells what is wrong
        return None
    waiting = (task for task in tasks if task.correlation_id == request_id and task.queue_position is not None)
    task = next(waiting, None)
    return place(task.queue_position or 0, task.predicted_start_ms) if task else "waiting for the answer"


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
