"""Waiting for what another task, thread or process will bring about."""

from collections.abc import Callable

import trio

WAIT_S = 10.0
LOOK_S = 0.01


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as `condition` holds. Raises TooSlowError after WAIT_S seconds."""
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 -- the other side sets no event of ours
            await trio.sleep(LOOK_S)
