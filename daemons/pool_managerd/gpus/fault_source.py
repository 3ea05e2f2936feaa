"""Sources of GPU faults, each read in a thread of its own that outlives no daemon and never blocks the loop."""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

import trio

from pool_managerd.gpus.faults import Sighting

WAIT_S = 5.0
"""How long one wait in a thread may take: stopping the daemon does not depend on it."""
RETRY_S = 60.0
BATCH_MAX = 100
"""Sightings that are taken from a source at a time; what it holds beyond comes with the next batch, BATCH_S later."""
BATCH_S = 1.0

log = logging.getLogger(__name__)


class SourceUnavailable(Exception):
    """A source cannot be read; the text says why, for people."""


class FaultSource(Protocol):
    """Reports faults of GPUs. All methods are called from one thread. They block, but not for ever."""

    name: str

    def open(self) -> None:
        """Begin to listen. Raises SourceUnavailable."""
        ...

    def wait(self, limit_s: float, stopping: threading.Event) -> list[Sighting]:
        """Return the next faults, at most BATCH_MAX, or none after `limit_s` seconds. Raises SourceUnavailable."""
        ...

    def close(self) -> None: ...


async def follow(source: FaultSource, opened: Callable[[str], None], deliver: Callable[[list[Sighting]], None]) -> None:
    """Call `opened` when the source was opened and `deliver` for what it reports, on the trio thread, forever.

    A source that cannot be read is tried again every RETRY_S seconds. The thread ends within WAIT_S of cancellation.
    """
    token, stopping = trio.lowlevel.current_trio_token(), threading.Event()

    def call(function: Callable[..., None], *arguments: object) -> None:
        try:
            token.run_sync_soon(function, *arguments)
        except trio.RunFinishedError:
            stopping.set()

    def work() -> None:
        while not stopping.is_set():
            try:
                source.open()
                call(opened, source.name)
                while not stopping.is_set():
                    if found := source.wait(WAIT_S, stopping):
                        call(deliver, found)
                    if len(found) >= BATCH_MAX:
                        stopping.wait(BATCH_S)
            except SourceUnavailable as error:
                log.debug("GPU faults are not read from %s: %s", source.name, error)
            finally:
                source.close()
            stopping.wait(RETRY_S)

    limiter = trio.CapacityLimiter(1)
    try:
        await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)
    finally:
        stopping.set()
