"""The event stream of a task: read to its end, resumed after a lost connection, with a limit on every wait."""

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

TERMINAL_EVENTS = ("end", "error")
RECONNECT_S = 0.5
RESUME_LIMIT_S = 30.0
"""How long to retry a broken stream; a queen that restarts or crashes is back within seconds."""
IDLE_LIMIT_S = 45.0
"""Three of the queen's keep-alives, which it sends every 15 seconds."""


class EventHandler(Protocol):
    def event(self, event: ServerSentEvent) -> None: ...

    def connection_lost(self) -> None: ...


async def read_to_end(queen: QueenClient, accepted: TaskAccepted, handler: EventHandler) -> ServerSentEvent:
    """Pass each event to `handler` up to the terminal one, which is returned.

    A broken stream is resumed after the last event received. Raises CommandError if that fails for RESUME_LIMIT_S
    seconds, or if the queen refuses.
    """
    stream = _ResumableStream(queen, accepted.streams.sse, handler)
    while True:
        try:
            return await stream.read()
        except (UpstreamError, MalformedStream, CommandError) as error:
            if not stream.should_retry(error):
                raise stream.final_error(error, str(accepted.task_id)) from error
        handler.connection_lost()
        await trio.sleep(RECONNECT_S)


@dataclass
class _ResumableStream:
    """The position in an event stream. `give_up_at` is on trio's clock; it is infinite while events arrive."""

    queen: QueenClient
    path: str
    handler: EventHandler
    last_id: str = ""
    give_up_at: float = math.inf

    async def read(self) -> ServerSentEvent:
        """Read one connection to the terminal event. Raises UpstreamError, MalformedStream and CommandError."""
        async with self.queen.request("GET", self.path, headers={"last-event-id": self.last_id}) as response:
            async for event in read_events(IdleLimited(response.chunks())):
                self.handler.event(event)
                self.last_id, self.give_up_at = event.id or self.last_id, math.inf
                if event.name in TERMINAL_EVENTS:
                    return event
        raise UpstreamError("the stream ended before the task did")

    def should_retry(self, error: Exception) -> bool:
        now = trio.current_time()
        self.give_up_at = min(self.give_up_at, now + RESUME_LIMIT_S)
        refused = isinstance(error, CommandError) and error.status is not ExitStatus.TEMPORARY
        return not refused and now < self.give_up_at

    def final_error(self, error: Exception, task_id: str) -> CommandError:
        """Convert an error that is not retried.

        A queen does not know the events of tasks that ended before its restart, so a 404 after the first event is
        reported as a broken stream.
        """
        if isinstance(error, CommandError) and not (self.last_id and error.status is ExitStatus.NO_INPUT):
            return CommandError(error.message, error.hint, error.status)
        message = f"the stream of task {task_id} broke off: {error}"
        return CommandError(message, f"See orchctl tasks {task_id}.", ExitStatus.UNAVAILABLE)


@dataclass
class IdleLimited:
    """An iterator over `chunks` that raises UpstreamTimeout if none arrives for IDLE_LIMIT_S seconds."""

    chunks: AsyncIterator[bytes]

    def __aiter__(self) -> "IdleLimited":
        return self

    async def __anext__(self) -> bytes:
        try:
            with trio.fail_after(IDLE_LIMIT_S):
                return await anext(self.chunks)
        except trio.TooSlowError as error:
            raise UpstreamTimeout(f"no data for {IDLE_LIMIT_S:g} s") from error
