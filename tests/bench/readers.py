"""Readers of concurrent streams. Each checks that every numbered token arrives once and in order, and measures delays.

The tokens come from the stand-in engine. A reader reads either the events of a task (/v2) or a chat (/v1).
"""

import re
import time
from abc import ABC, abstractmethod
from array import array
from dataclasses import dataclass, field

from tests.bench.queen import MODEL
from tests.bench.wire import Answer, Broken, Wire, encoded, event_of

SLOW_BYTES_S = 1024
"""Bytes per second that a slow reader reads, a third of the rate of the stream."""
RECEIVE_BUFFER = 4096
PAD = 200
"""Characters added to each token of a slow reader."""
TOKEN = re.compile(rb'" (\d+):(\d+\.\d+)x*"')
NUMBER = re.compile(rb'"i": ?(\d+)')
PATH = re.compile(rb'"sse": ?"([^"]+)"')


@dataclass
class Delays:
    """Delays of fast readers in seconds: between two tokens (gaps), and since the engine sent the token (delays)."""

    gaps: "array[float]" = field(default_factory=lambda: array("d"))
    delays: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass
class StreamResults:
    """Results of all readers. `delays_now` collects the current delays. `slow` makes the slow readers read slowly."""

    tokens: int
    """Number of tokens in each stream."""
    delays_now: Delays | None = None
    slow: bool = False
    tokens_read: int = 0
    """Tokens that fast readers have read."""
    bytes_read: int = 0
    """Size of their events."""
    complete: int = 0
    complete_slow: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Reader(ABC):
    """Reader of one stream."""

    port: int
    results: StreamResults
    slow: bool = False
    read: int = 0
    """Tokens read so far."""
    last_at: float = 0.0
    ended: bool = False
    last: bytes = b""
    """The latest event."""

    async def follow(self) -> None:
        """Send the request and read the stream to its end. Failures are recorded in the results."""
        try:
            with await Wire.open(self.port, receive_buffer=RECEIVE_BUFFER if self.slow else None) as wire:
                await self._begin(wire)
                async for frame in wire.frames():
                    wire.bytes_per_second = SLOW_BYTES_S if self.slow and self.results.slow else 0
                    self._take(frame)
        except (Broken, OSError) as error:
            self._record_problem(f"{error} after token {self.read}")
        else:
            self._finished()

    @abstractmethod
    async def _begin(self, wire: Wire) -> None:
        """Request the stream. Raises Broken."""

    @abstractmethod
    def _is_end(self, frame: bytes) -> bool:
        """Whether the frame is the end of the stream."""

    def _problem(self, frame: bytes, number: int | None) -> str | None:
        """Check a frame apart from the number of its token, and return a problem or None."""
        return None

    @property
    def _prompt(self) -> str:
        return f"pad={PAD if self.slow else 0}"

    def _take(self, frame: bytes) -> None:
        if self.ended:
            self._record_problem("data after the end")
        self.ended, self.last = self._is_end(frame), frame
        found = TOKEN.search(frame)
        if problem := self._problem(frame, int(found[1]) if found else None):
            self._record_problem(problem)
        if found:
            self._token(int(found[1]), float(found[2]))
            self._count(len(frame) + 2)

    def _token(self, number: int, sent_at: float) -> None:
        if number != self.read:
            self._record_problem(f"token {number} where {self.read} was next")
        self.read, now = number + 1, time.monotonic()
        if (delays_now := self.results.delays_now) and not self.slow and self.last_at:
            delays_now.gaps.append(now - self.last_at)
            delays_now.delays.append(now - sent_at)
        self.last_at = now

    def _count(self, length: int) -> None:
        if not self.slow:
            self.results.tokens_read += 1
            self.results.bytes_read += length

    def _finished(self) -> None:
        if self.read != self.results.tokens or not self.ended:
            self._record_problem(f"the stream ends after token {self.read}: {self.last[:200]!r}")
        elif self.slow:
            self.results.complete_slow += 1
        else:
            self.results.complete += 1

    def _record_problem(self, what: str) -> None:
        self.results.problems.append(f"{'slow' if self.slow else 'fast'} reader: {what}")


@dataclass
class TaskReader(Reader):
    """Reader of the events of a task."""

    last_id: int = 0

    async def _begin(self, wire: Wire) -> None:
        body = {"prompt": self._prompt, "max_tokens": self.results.tokens}
        found = PATH.search(_expected(202, await wire.ask(encoded("POST", "/v2/tasks", body))).body)
        if not found:
            raise Broken("the response names no stream")
        _expected(200, await wire.begin(encoded("GET", found[1].decode())))

    def _is_end(self, frame: bytes) -> bool:
        return b"\nevent: end\n" in frame

    def _problem(self, frame: bytes, number: int | None) -> str | None:
        event, last = event_of(frame), self.last_id
        self.last_id = event.number
        if event.number <= last:
            return f"event {event.number} after event {last}"
        index = NUMBER.search(event.data)
        if number is not None and (not index or int(index[1]) != number):
            return f"the event of token {number} has another number"
        return None


@dataclass
class ChatReader(Reader):
    """Reader of the chunks of a chat."""

    async def _begin(self, wire: Wire) -> None:
        messages = [{"role": "user", "content": self._prompt}]
        body = {"model": MODEL, "messages": messages, "max_tokens": self.results.tokens, "stream": True}
        _expected(200, await wire.begin(encoded("POST", "/v1/chat/completions", body)))

    def _is_end(self, frame: bytes) -> bool:
        return frame == b"data: [DONE]"


def _expected(status: int, answer: Answer) -> Answer:
    if answer.status != status:
        raise Broken(f"status {answer.status}, expected {status}")
    return answer
