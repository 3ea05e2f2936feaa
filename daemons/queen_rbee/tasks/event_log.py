"""A task's events: appended by one writer, read by any number of readers at their own pace.

Each event is encoded once, as the SSE frame that every reader gets, and lies behind the one before in a single piece of
memory: a token of 5 letters costs 73 bytes (measured; as an object of its own 230). A reader holds only a
number, so that a slow one costs no memory and holds up nobody. The log is as long as the answer is, unless somebody
discards what its only reader has.
"""

import json
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import trio

TERMINAL = ("end", "error")
NARRATION = "narration"
PIECE = 16 * 1024
"""Bytes that are handed out at once, where one event is not longer. A piece is what a slow reader holds of its own, and
what it must take before the server gives it up: 550 bytes a second are enough."""
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
        self._data = bytearray()
        self._starts = array("Q", [0])
        """Where each frame starts in the data, and behind the last one where the next will."""
        self._narrations: list[int] = []
        self._gone = self._gone_bytes = 0
        """How many frames were discarded, and their bytes: data and starts begin behind them."""
        self._more = trio.Event()

    def __len__(self) -> int:
        return self._gone + len(self._starts) - 1

    @property
    def size(self) -> int:
        """Bytes of all frames that it has."""
        return len(self._data)

    def append(self, event: str, data: Mapping[str, object]) -> bool:
        """Add an event and wake the readers; False, and nothing added, after the terminal event."""
        return self.append_json(event, COMPACT(data))

    def append_json(self, event: str, data: str) -> bool:
        """As `append`, with data that is JSON already, in one line."""
        if self.closed:
            return False
        if event == NARRATION:
            self._narrations.append(len(self))
        self._data += f"id: {self.last_id + 1}\nevent: {event}\ndata: {data}\n\n".encode()
        self._starts.append(self._gone_bytes + len(self._data))
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
        return self._base + len(self)

    def piece(self, last_id: int) -> list[Frame]:
        """As `frames`, as many as make a piece."""
        start = self._index(last_id)
        return [_frame(self._slice(index, index + 1)) for index in range(start, self._stop(start))]

    def frames(self, last_id: int) -> list[Frame]:
        """The events behind event `last_id`."""
        return [_frame(self._slice(index, index + 1)) for index in range(self._index(last_id), len(self))]

    def after(self, last_id: int, verbose: bool) -> tuple[bytes, int]:
        """The frames behind event `last_id`, as many as make a piece, and the id of the last of them."""
        start = self._index(last_id)
        stop = self._stop(start)
        left_out = [] if verbose else [index for index in self._narrations if start <= index < stop]
        pieces = []
        for index in left_out:
            pieces.append(self._slice(start, index))
            start = index + 1
        pieces.append(self._slice(start, stop))
        return b"".join(pieces), max(last_id, self._base + stop)

    def discard(self, last_id: int) -> None:
        """The only reader there will ever be has all up to event `last_id`: their memory is given back."""
        index = self._index(last_id)
        gone_bytes = self._starts[index - self._gone]
        del self._data[: gone_bytes - self._gone_bytes]
        del self._starts[: index - self._gone]
        self._gone, self._gone_bytes = index, gone_bytes

    def _stop(self, start: int) -> int:
        """Where the piece ends that begins with the event at `start`: behind one event at least, if there is one."""
        most = self._starts[start - self._gone] + PIECE
        fitting = self._gone + bisect_right(self._starts, most, start - self._gone) - 1
        return min(len(self), max(start + 1, fitting))

    def _index(self, last_id: int) -> int:
        return min(max(self._gone, last_id - self._base), len(self))

    def _slice(self, first: int, behind: int) -> bytes:
        start, stop = (self._starts[index - self._gone] - self._gone_bytes for index in (first, behind))
        with memoryview(self._data) as view:
            return bytes(view[start:stop])

    async def wait_beyond(self, last_id: int) -> None:
        """Return once there is an event behind `last_id`, or the log is closed."""
        while self.last_id <= last_id and not self.closed:
            await self._more.wait()


def _frame(data: bytes) -> Frame:
    """The frame that `data` is: its second line names the event."""
    return Frame(data.split(b"\n", 2)[1].removeprefix(b"event: ").decode(), data)
