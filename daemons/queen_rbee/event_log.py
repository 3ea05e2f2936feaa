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
    """One event; `data` is the whole SSE frame, `narration` marks those for verbose readers only."""

    data: bytes
    narration: bool


class EventLog:
    """Append-only until the terminal event; ids count from 1."""

    def __init__(self) -> None:
        self.closed = False
        self.size = 0
        self._frames: list[Frame] = []
        self._more = trio.Event()

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, event: str, data: Mapping[str, object]) -> bool:
        """Add an event and wake the readers; False, and nothing added, after the terminal event."""
        if self.closed:
            return False
        frame = _encode(len(self._frames) + 1, event, data)
        self._frames.append(Frame(frame, event == "narration"))
        self.size += len(frame)
        self.closed = event in TERMINAL
        self._more.set()
        self._more = trio.Event()
        return True

    def after(self, last_id: int, verbose: bool) -> tuple[bytes, int]:
        """The frames behind event `last_id` in one piece, and the id of the last of them."""
        frames = self._frames[last_id:]
        return b"".join(frame.data for frame in frames if verbose or not frame.narration), last_id + len(frames)

    async def wait_beyond(self, last_id: int) -> None:
        """Return once there is an event behind `last_id`, or the log is closed."""
        while len(self._frames) <= last_id and not self.closed:
            await self._more.wait()


def _encode(number: int, event: str, data: Mapping[str, object]) -> bytes:
    return f"id: {number}\nevent: {event}\ndata: {COMPACT(data)}\n\n".encode()
