"""Watching an engine that has been started: until it is healthy, until it is silent, until it ends."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from engine_provisioner.launch.launcher import RunningEngine
from engine_provisioner.supervise import health
from engine_provisioner.supervise.health import Condition

T = TypeVar("T")

FIRST_LOOK_S, SLOWEST_LOOK_S = 0.02, 0.5
WATCH_S = 5.0
UNHEALTHY_S = 60.0
"""An engine that has not answered for so long is to be replaced. A busy one may miss some looks."""


async def while_running(engine: RunningEngine, work: Callable[[], Awaitable[T]]) -> T | None:
    """The result of `work`, which must not raise, or None where the engine ended first."""
    result = None
    async with trio.open_nursery() as nursery:

        async def until_the_end() -> None:
            await engine.ended()
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_the_end)
        result = await work()
        nursery.cancel_scope.cancel()
    return result


async def is_alive(url: str, engine: str) -> bool:
    """Whether the engine answers, be it ready or loading. One that is busy gets a second and a third chance."""
    for _chance in range(3):
        if (await health.check(url, engine)).condition is not Condition.SILENT:
            return True
    return False


async def until_healthy(url: str, engine: str, limit_s: float, on_loading: Callable[[str], Awaitable[None]]) -> bool:
    """True as soon as the engine answers its health check, False after `limit_s` seconds without."""
    pause = FIRST_LOOK_S
    with trio.move_on_after(limit_s):
        while (seen := await health.check(url, engine)).condition is not Condition.UP:
            if seen.condition is Condition.LOADING:
                await on_loading(seen.detail)
            await trio.sleep(pause)
            pause = min(pause * 1.3, SLOWEST_LOOK_S)
        return True
    return False


async def until_silent(url: str, engine: str, on_look: Callable[[], None]) -> str:
    """What the engine last answered, once it has not been well for UNHEALTHY_S seconds."""
    last_up = trio.current_time()
    while True:
        on_look()
        await trio.sleep(WATCH_S)
        seen = await health.check(url, engine)
        if seen.condition is Condition.UP:
            last_up = trio.current_time()
        elif trio.current_time() - last_up >= UNHEALTHY_S:
            return seen.detail
