"""A task's events to their end: resumed where the connection breaks, given up where nothing comes any more."""

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import trio

from llama_orch.contracts.tasks import TaskAccepted
from llama_orch.http.client.client import UpstreamError, UpstreamTimeout
from llama_orch.http.client.sse import MalformedStream, ServerSentEvent, read_events
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient
from orchctl.errors import CommandError

TERMINAL = ("end", "error")
RECONNECT_S = 0.5
RESUME_S = 30.0
"""How long a broken stream is tried to be resumed: a queen that is restarted, or crashes, is back within seconds."""
IDLE_S = 45.0
"""Three of the queen's keep-alives, which come every 15 seconds."""


class Show(Protocol):
    """Where a task's events go."""

    def event(self, event: ServerSentEvent) -> None:
        """Take the next one."""

    def lost(self) -> None:
        """Hear that the connection is lost and sought again."""


async def read_to_end(queen: QueenClient, accepted: TaskAccepted, show: Show) -> ServerSentEvent:
    """Give each event to `show` until the terminal one, which is returned.

    A stream that breaks off is resumed behind the last event seen. Raises CommandError where that does not succeed for
    RESUME_S seconds, and where the queen refuses.
    """
    reading = _Reading(queen, accepted.streams.sse, show)
    while True:
        try:
            return await reading.on()
        except (UpstreamError, MalformedStream, CommandError) as error:
            if reading.hopeless(error):
                raise reading.outcome(error, str(accepted.task_id)) from error
        show.lost()
        await trio.sleep(RECONNECT_S)


@dataclass
class _Reading:
    """How far the events are read; `give_up_at` is on trio's clock, and inf while they come."""

    queen: QueenClient
    path: str
    show: Show
    last_id: str = ""
    give_up_at: float = math.inf

    async def on(self) -> ServerSentEvent:
        """The terminal event, where this connection brings it. Raises UpstreamError, MalformedStream and CommandError."""
        async with self.queen.ask("GET", self.path, headers={"last-event-id": self.last_id}) as response:
            async for event in read_events(Timely(response.chunks())):
                self.show.event(event)
                self.last_id, self.give_up_at = event.id or self.last_id, math.inf
                if event.name in TERMINAL:
                    return event
        raise UpstreamError("it ended before the task did")

    def hopeless(self, error: Exception) -> bool:
        """Whether another connection would not mend it, or should have."""
        now = trio.current_time()
        self.give_up_at = min(self.give_up_at, now + RESUME_S)
        refused = isinstance(error, CommandError) and error.status is not ExitStatus.TEMPORARY
        return refused or now >= self.give_up_at

    def outcome(self, error: Exception, task_id: str) -> CommandError:
        """What a hopeless one means; the events of tasks that had ended are gone with the queen of that time."""
        if isinstance(error, CommandError) and not (self.last_id and error.status is ExitStatus.NO_INPUT):
            return CommandError(error.message, error.hint, error.status)
        message = f"the stream of task {task_id} broke off: {error}"
        return CommandError(message, f"See orchctl tasks {task_id}.", ExitStatus.UNAVAILABLE)


@dataclass
class Timely:
    """`chunks`, with UpstreamTimeout where none comes for IDLE_S seconds."""

    chunks: AsyncIterator[bytes]

    def __aiter__(self) -> "Timely":
        return self

    async def __anext__(self) -> bytes:
        try:
            with trio.fail_after(IDLE_S):
                return await anext(self.chunks)
        except trio.TooSlowError as error:
            raise UpstreamTimeout(f"nothing came for {IDLE_S:g} s") from error
