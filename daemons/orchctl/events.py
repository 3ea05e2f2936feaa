"""A task's events to their end: resumed where the connection breaks, given up where nothing comes any more."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import trio

from llama_orch.contracts.tasks import TaskAccepted
from llama_orch.http.client import UpstreamError, UpstreamTimeout
from llama_orch.http.sse import MalformedStream, ServerSentEvent, read_events
from llama_orch.service.exit import ExitStatus
from orchctl.failure import Failure
from orchctl.queen import Queen

RECONNECTS = 20
RECONNECT_S = 0.5
IDLE_S = 45.0
"""Three of the queen's keep-alives, which come every 15 seconds."""


async def read_to_end(queen: Queen, accepted: TaskAccepted, show: Callable[[ServerSentEvent], None]) -> ServerSentEvent:
    """Give each event to `show` until the terminal one, which is returned.

    A stream that breaks off is resumed behind the last event seen. Raises Failure after RECONNECTS attempts in a
    row without an event, and where the queen refuses.
    """
    last_id, left = "", RECONNECTS
    while True:
        try:
            async with queen.ask("GET", accepted.streams.sse, headers={"last-event-id": last_id}) as response:
                async for event in read_events(Timely(response.chunks())):
                    show(event)
                    last_id, left = event.id or last_id, RECONNECTS
                    if event.name in ("end", "error"):
                        return event
            raise UpstreamError("it ended before the task did")
        except (UpstreamError, MalformedStream) as error:
            left -= 1
            if not left:
                message = f"the stream of task {accepted.task_id} broke off: {error}"
                raise Failure(message, f"See orchctl tasks {accepted.task_id}.", ExitStatus.UNAVAILABLE) from error
            await trio.sleep(RECONNECT_S)


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
