"""Waiting for the effects of another task, thread or process."""

from collections.abc import Callable

import trio

WAIT_S = 10.0
POLL_S = 0.01


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds. Raises TooSlowError after WAIT_S seconds."""
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 -- the other side has no event to wait for
            await trio.sleep(POLL_S)
