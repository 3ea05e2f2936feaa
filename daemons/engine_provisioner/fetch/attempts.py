"""Parts of a file that connections download side by side: how they go on after a break, and how one ends them all."""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.fetch.backoff import Backoff
from engine_provisioner.fetch.web import Broken
from engine_provisioner.step_deadline import DISK_STEP_S

log = logging.getLogger(__name__)


class Changed(Exception):
    """What is on disk does not belong to the file that the server has now."""


@dataclass
class Claim:
    """A part of the file that one connection downloads; `start` moves as bytes are stored. `end` None: all there is."""

    start: int
    end: int | None


Work = Callable[[], Awaitable[None]]


@asynccontextmanager
async def first_failure() -> AsyncIterator[tuple[trio.Nursery, Callable[[Work], Awaitable[None]]]]:
    """Yield a nursery, and a function that runs work in it whose first failure cancels the rest and is raised."""
    failures: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def guarded(work: Work) -> None:
            try:
                await work()
            except (Broken, Changed, ProvisioningFailure, OSError) as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        yield nursery, guarded
    if failures:
        raise failures[0]


async def pause(backoff: Backoff, broken: Broken, shown: str, expect: Callable[[float, str], None]) -> None:
    """Wait before the next attempt at `shown`. Raises ProvisioningFailure if there were too many without progress."""
    delay = backoff.delay_s(random.random())  # noqa: S311 -- only spreads the load
    if delay is None:
        message = f"cannot download {shown}: {broken}"
        raise ProvisioningFailure(message, "The download resumes on the next attempt.") from broken
    delay = max(delay, broken.retry_after_s)
    log.debug("%s: %s; goes on in %.1f s", shown, broken, delay)
    expect(delay + DISK_STEP_S, "waiting to resume a download")
    await trio.sleep(delay)
