"""Waiting for a started engine: until it is healthy, until it stops answering, until it ends."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from engine_provisioner.launch.launcher import RunningEngine
from engine_provisioner.spec.pool_spec import Timeouts
from engine_provisioner.supervise import health
from engine_provisioner.supervise.health import Condition

T = TypeVar("T")

FIRST_POLL_S, SLOWEST_POLL_S = 0.02, 0.1
"""Pauses between health checks while an engine loads. The client waits for half of the last one on average."""
WATCH_S = 5.0
UNHEALTHY_S = 60.0
"""An engine that did not answer for this long is replaced. A busy engine may miss some health checks."""
LIVENESS_TRIES = 3
SLOW_DISK_BYTES_S = 50_000_000
"""A disk that a model is loaded from reads at least this fast."""


def load_limit_s(timeouts: Timeouts, size_bytes: int) -> float:
    """Return the time for loading a model of that size: as configured, or else more for a large model."""
    limit_s = timeouts.wall_ms / 1000
    return limit_s if "wall_ms" in timeouts.model_fields_set else limit_s + size_bytes / SLOW_DISK_BYTES_S


async def while_running(engine: RunningEngine, work: Callable[[], Awaitable[T]]) -> T | None:
    """Return the result of `work`, which must not raise, or None if the engine ends first."""
    result = None
    async with trio.open_nursery() as nursery:

        async def cancel_at_exit() -> None:
            await engine.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(cancel_at_exit)
        result = await work()
        nursery.cancel_scope.cancel()
    return result


async def is_alive(url: str, engine: str) -> bool:
    """Whether the engine answers, ready or still loading. A busy engine gets LIVENESS_TRIES tries."""
    for _try in range(LIVENESS_TRIES):
        if (await health.check(url, engine)).condition is not Condition.SILENT:
            return True
    return False


async def until_healthy(url: str, engine: str, limit_s: float, on_loading: Callable[[str], Awaitable[None]]) -> bool:
    """Return True once the engine is healthy, False after `limit_s` seconds."""
    pause = FIRST_POLL_S
    with trio.move_on_after(limit_s):
        while (seen := await health.check(url, engine)).condition is not Condition.UP:
            if seen.condition is Condition.LOADING:
                await on_loading(seen.detail)
            await trio.sleep(pause)
            pause = min(pause * 1.3, SLOWEST_POLL_S)
        return True
    return False


async def until_silent(url: str, engine: str, on_check: Callable[[], None]) -> str:
    """Return the result of the last health check once the engine was unhealthy for UNHEALTHY_S seconds."""
    last_up = trio.current_time()
    while True:
        on_check()
        await trio.sleep(WATCH_S)
        seen = await health.check(url, engine)
        if seen.condition is Condition.UP:
            last_up = trio.current_time()
        elif trio.current_time() - last_up >= UNHEALTHY_S:
            return seen.detail
