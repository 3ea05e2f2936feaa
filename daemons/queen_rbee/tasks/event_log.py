"""A task's events: appended by one writer, read by any number of readers at their own pace.

Each event is encoded once, as the SSE frame that every reader gets, and stored in one buffer: a token of 5 letters
costs 73 bytes (measured; 230 as an object of its own). A reader holds only an event id, so a slow reader costs no
memory and delays nobody. The log grows with the answer unless its only reader discards what it has read.
"""

import json
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import trio

TERMINAL = ("end", "error")
NARRATION = "narration"
BATCH_BYTES = 16 * 1024
"""Frames are handed out in batches of at most this size, or one frame if that is longer. A slow reader holds one batch,
and must take it before the server closes the connection: 550 bytes/s suffice."""
# json.dumps would create an encoder for each token
encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Frame:
    """One event. `data` is the whole SSE frame; `narration` events are for verbose readers only."""

    event: str
    data: bytes

    @property
    def payload(self) -> bytes:
        """The event's JSON."""
        return self.data[self.data.index(b"\ndata: ") + 7 : -2]


class EventLog:
    """Append-only until the terminal event. Event ids count from `base` + 1.

    A task that runs again after a restart gets a higher base, so that a reader that resumes with an old id misses
    nothing.
    """

    def __init__(self, base: int = 0) -> None:
        self.closed = False
        self.readers = 0
        """Readers that follow the log now; queue positions are reported only if there are any."""
        self._base = base
        self._data = bytearray()
        self._starts = array("Q", [0])
        """Offset of each frame, then that of the next one to come; counted from the first frame ever."""
        self._narrations: list[int] = []
        self._discarded = self._discarded_bytes = 0
        self._appended: trio.Event | None = None
        """Set by the next event; None while no reader waits for one."""

    def __len__(self) -> int:
        return self._discarded + len(self._starts) - 1

    @property
    def size(self) -> int:
        """Bytes of all frames that are not discarded."""
        return len(self._data)

    def append(self, event: str, data: Mapping[str, object]) -> bool:
        """Add an event and wake the readers; False, and nothing added, after the terminal event."""
        return self.append_json(event, encode_json(data))

    def append_json(self, event: str, data: str) -> bool:
        """As `append`; `data` is JSON in one line."""
        if self.closed:
            return False
        if event == NARRATION:
            self._narrations.append(len(self))
        self._data += f"id: {self.last_id + 1}\nevent: {event}\ndata: {data}\n\n".encode()
        self._starts.append(self._discarded_bytes + len(self._data))
        self.closed = event in TERMINAL
        self._wake_readers()
        return True

    def _wake_readers(self) -> None:
        if self._appended is not None:
            self._appended.set()
            self._appended = None

    def suspend(self) -> None:
        """Close the log of a task that has not ended: it continues after a restart."""
        self.closed = True
        self._wake_readers()

    @property
    def last_id(self) -> int:
        """The id of the newest event."""
        return self._base + len(self)

    def frame_batch(self, last_id: int) -> list[Frame]:
        """Return the events after event `last_id`, at most one batch."""
        start = self._index(last_id)
        return [_parse_frame(self._slice(index, index + 1)) for index in range(start, self._batch_stop(start))]

    def frames(self, last_id: int) -> list[Frame]:
        """Return all events after event `last_id`."""
        return [_parse_frame(self._slice(index, index + 1)) for index in range(self._index(last_id), len(self))]

    def after(self, last_id: int, verbose: bool) -> tuple[bytes, int]:
        """Return the bytes of the frames after event `last_id`, at most one batch, and the id of the last of them."""
        start = self._index(last_id)
        stop = self._batch_stop(start)
        omitted = [] if verbose else [index for index in self._narrations if start <= index < stop]
        parts = []
        for index in omitted:
            parts.append(self._slice(start, index))
            start = index + 1
        parts.append(self._slice(start, stop))
        return b"".join(parts), max(last_id, self._base + stop)

    def discard(self, last_id: int) -> None:
        """Free the memory of events up to `last_id`, which the log's only reader has read."""
        index = self._index(last_id)
        discarded_bytes = self._starts[index - self._discarded]
        del self._data[: discarded_bytes - self._discarded_bytes]
        del self._starts[: index - self._discarded]
        self._discarded, self._discarded_bytes = index, discarded_bytes

    def _batch_stop(self, start: int) -> int:
        """Return the end of the batch that begins at `start`; it has at least one event if there is one."""
        limit = self._starts[start - self._discarded] + BATCH_BYTES
        fitting = self._discarded + bisect_right(self._starts, limit, start - self._discarded) - 1
        return min(len(self), max(start + 1, fitting))

    def _index(self, last_id: int) -> int:
        return min(max(self._discarded, last_id - self._base), len(self))

    def _slice(self, first: int, stop: int) -> bytes:
        start, end = (self._starts[index - self._discarded] - self._discarded_bytes for index in (first, stop))
        with memoryview(self._data) as view:
            return bytes(view[start:end])

    async def wait_beyond(self, last_id: int) -> None:
        """Return once there is an event after `last_id`, or the log is closed."""
        while self.last_id <= last_id and not self.closed:
            if self._appended is None:
                self._appended = trio.Event()
            await self._appended.wait()


def _parse_frame(data: bytes) -> Frame:
    """Read the event's name from the second line."""
    return Frame(data.split(b"\n", 2)[1].removeprefix(b"event: ").decode(), data)
