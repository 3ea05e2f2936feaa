"""A task's events: appended by one writer, read by any number of readers at their own pace.

Each event is encoded once, as the SSE frame that every reader gets; a reader holds only an index, so that a slow one
costs no memory and holds up nobody. The log is as long as the answer is: its bytes are counted in `size`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import trio

TERMINAL = ("end", "error")
# json.dumps would make an encoder for each token
COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Frame:
    """One event by its name; `data` is the whole SSE frame, `narration` is for verbose readers only."""

    event: str
    data: bytes

    @property
    def payload(self) -> bytes:
        """The JSON alone."""
        return self.data[self.data.index(b"\ndata: ") + 7 : -2]


class EventLog:
    """Append-only until the terminal event; ids count from `base` + 1.

    A task that is run again after a restart gets a higher base than before, so that whoever resumes with an id from
    then misses nothing.
    """

    def __init__(self, base: int = 0) -> None:
        self.closed = False
        self.readers = 0
        """How many read on as events come; nobody needs to be told of what only a waiting reader wants to know."""
        self._base = base
        self.size = 0
        self._frames: list[Frame] = []
        self._more = trio.Event()

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, event: str, data: Mapping[str, object]) -> bool:
        """Add an event and wake the readers; False, and nothing added, after the terminal event."""
        return self.append_json(event, COMPACT(data))

    def append_json(self, event: str, data: str) -> bool:
        """As `append`, with data that is JSON already, in one line."""
        if self.closed:
            return False
        self._frames.append(Frame(event, f"id: {self.last_id + 1}\nevent: {event}\ndata: {data}\n\n".encode()))
        self.size += len(self._frames[-1].data)
        self.closed = event in TERMINAL
        self._more.set()
        self._more = trio.Event()
        return True

    def suspend(self) -> None:
        """No more events come here, though the task has not ended: the next queen goes on with it."""
        self.closed = True
        self._more.set()

    @property
    def last_id(self) -> int:
        """The id of the newest event."""
        return self._base + len(self._frames)

    def frames(self, last_id: int) -> list[Frame]:
        """The events behind event `last_id`."""
        return self._frames[max(0, last_id - self._base) :]

    def after(self, last_id: int, verbose: bool) -> tuple[bytes, int]:
        """The frames behind event `last_id` in one piece, and the id of the last of them."""
        frames = self.frames(last_id)
        data = b"".join(frame.data for frame in frames if verbose or frame.event != "narration")
        return data, max(last_id, self.last_id)

    async def wait_beyond(self, last_id: int) -> None:
        """Return once there is an event behind `last_id`, or the log is closed."""
        while self.last_id <= last_id and not self.closed:
            await self._more.wait()
