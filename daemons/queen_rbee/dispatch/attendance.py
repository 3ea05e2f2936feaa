"""The /v1 clients that wait for an answer: what is due for each of them while nothing arrives for it.

One task looks after all of them, so that an answer needs no timer of its own.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from llama_orch.bell import Bell

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""How often each client is looked after, at least."""


class Attended(Protocol):
    """A client that waits."""

    def attend(self, now: float) -> float:
        """Do what is due; return when something is due next, on trio's clock."""
        ...


class Attendance:
    """Owns the tasks that send to slow clients. `run` must run while there are clients."""

    def __init__(self) -> None:
        self._waiting: set[Attended] = set()
        self._nursery: trio.Nursery | None = None
        self._bell = Bell()

    def add(self, client: Attended) -> None:
        """Look after `client` from now on, until `remove`."""
        client.attend(trio.current_time())
        self._waiting.add(client)
        if len(self._waiting) == 1:
            self._bell.ring()

    def remove(self, client: Attended) -> None:
        self._waiting.discard(client)

    def start(self, send: Callable[[], Awaitable[None]]) -> None:
        """Run `send` beside the caller."""
        assert self._nursery, "Attendance.run is not running"
        self._nursery.start_soon(_contained, send)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look after all clients, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                now = trio.current_time()
                due_at = min((client.attend(now) for client in tuple(self._waiting)), default=float("inf"))
                await self._bell.wait(min(INTERVAL_S if self._waiting else float("inf"), max(0.0, due_at - now)))


async def _contained(send: Callable[[], Awaitable[None]]) -> None:
    try:
        await send()
    except Exception:  # a defect there affects one client only
        log.exception("internal error: an answer was not sent")
