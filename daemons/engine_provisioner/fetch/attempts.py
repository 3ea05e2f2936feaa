"""Parts of a file that connections download side by side, and how the failure of one ends them all."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.fetch.web import Broken


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
