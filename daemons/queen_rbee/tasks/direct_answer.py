"""The log of a /v1 task, whose answer goes to its client as it comes and is not kept.

It has the interface of an EventLog, so that the code that runs a task does not depend on who waits for it. Pieces of
the answer go to `take`; the few other events are kept as they are and encoded for the rare reader who follows the task
by its id.
"""

from collections.abc import Awaitable, Callable, Mapping

import trio

from queen_rbee.tasks.event_log import TERMINAL, EventLog, Frame

Take = Callable[[str, str], object]
"""Gets a piece of the answer: the event's name (`chunk`, `usage` or `result`) and its JSON in one line."""
EVENT_BYTES = 300
"""The size of a kept event, about."""


def _discard(_event: str, _data: str) -> None:
    """Discard a piece that nobody waits for."""


async def _nothing() -> None:
    """There is nothing to send."""


class DirectAnswer:
    """The answer of one task. The client's task runs it as soon as it is `granted` a slot."""

    def __init__(self) -> None:
        self.closed = False
        self.granted = False
        self.readers = 0
        self.take: Take = _discard
        self.flush: Callable[[], Awaitable[None]] = _nothing
        """Called when all pieces that have arrived together are taken."""
        self._events: list[tuple[str, Mapping[str, object]]] = []
        self._changed = trio.Event()

    def append(self, event: str, data: Mapping[str, object]) -> bool:
        """Keep an event; False, and nothing kept, after the terminal event."""
        if self.closed:
            return False
        self._events.append((event, data))
        self.closed = event in TERMINAL
        self._notify()
        return True

    def append_json(self, event: str, data: str) -> bool:
        """Pass a piece of the answer on; False after the terminal event. `data` is JSON in one line."""
        if self.closed:
            return False
        self.take(event, data)
        return True

    def release(self) -> None:
        """Keep nothing of the client and the answer: ended tasks stay in memory for a while."""
        self.take, self.flush = _discard, _nothing

    def suspend(self) -> None:
        """Close without an end."""
        self.closed = True
        self._notify()

    def grant(self) -> None:
        """The task has a slot: the client's task shall run it."""
        self.granted = True
        self._notify()

    async def wait_granted(self) -> None:
        """Return once the task has a slot or has ended."""
        while not (self.granted or self.closed):
            await self._changed.wait()

    def _notify(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    @property
    def size(self) -> int:
        """Bytes of what is kept, about."""
        return EVENT_BYTES * len(self._events)

    @property
    def last_id(self) -> int:
        """The id of the newest event that is kept."""
        return len(self._events)

    async def wait_beyond(self, last_id: int) -> None:
        """Return once there is an event after `last_id`, or the log is closed."""
        while self.last_id <= last_id and not self.closed:
            await self._changed.wait()

    def after(self, last_id: int, verbose: bool) -> tuple[bytes, int]:
        """Return the frames of kept events as EventLog.after does."""
        return self._encoded().after(last_id, verbose)

    def frames(self, last_id: int) -> list[Frame]:
        """Return all kept events after event `last_id`."""
        return self._encoded().frames(last_id)

    def _encoded(self) -> EventLog:
        log = EventLog()
        for event, data in self._events:
            log.append(event, data)
        return log
