"""Readers of many streams at once: each checks that all of its numbered tokens come, once and in order, and dates them.

Tokens are those of the stand-in engine. There are two ways to a stream: a task's events at /v2, a chat's at /v1.
"""

import re
import time
from abc import ABC, abstractmethod
from array import array
from dataclasses import dataclass, field

from tests.bench.queen import MODEL
from tests.bench.wire import Answer, Broken, Wire, encoded, event_of

SIP_S = 1024
"""Bytes a second that a slow reader takes, a third of what is said to it."""
RECEIVE_BUFFER = 4096
PAD = 200
"""Characters added to each token of a slow reader."""
TOKEN = re.compile(rb'" (\d+):(\d+\.\d+)x*"')
NUMBER = re.compile(rb'"i": ?(\d+)')
PATH = re.compile(rb'"sse": ?"([^"]+)"')


@dataclass
class Half:
    """What fast readers see in one half of the time, in seconds: between two tokens, and from the engine's word on."""

    gaps: "array[float]" = field(default_factory=lambda: array("d"))
    delays: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass
class Seen:
    """All readers together. `half` is where measurements go now; `slow`: those that are to be slow are."""

    tokens: int
    """That each stream has."""
    half: Half | None = None
    slow: bool = False
    told: int = 0
    """Tokens that fast readers have got."""
    told_bytes: int = 0
    """Of their events."""
    whole: int = 0
    whole_slow: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Reader(ABC):
    """One stream."""

    port: int
    seen: Seen
    slow: bool = False
    read: int = 0
    """Tokens."""
    last_at: float = 0.0
    ended: bool = False
    last: bytes = b""
    """The newest event."""

    async def follow(self) -> None:
        """From the request to the end, however that comes about."""
        try:
            with await Wire.open(self.port, receive_buffer=RECEIVE_BUFFER if self.slow else None) as wire:
                await self._begin(wire)
                async for frame in wire.frames():
                    wire.slowly = SIP_S if self.slow and self.seen.slow else 0
                    self._take(frame)
        except (Broken, OSError) as error:
            self._wrong(f"{error} behind token {self.read}")
        else:
            self._finished()

    @abstractmethod
    async def _begin(self, wire: Wire) -> None:
        """Ask for the stream. Raises Broken."""

    @abstractmethod
    def _is_end(self, frame: bytes) -> bool:
        """Whether it says that the stream is complete."""

    def _problem(self, frame: bytes, number: int | None) -> str | None:
        """What is wrong with a frame besides the number of its token, if it has one."""
        return None

    @property
    def _prompt(self) -> str:
        return f"pad={PAD if self.slow else 0}"

    def _take(self, frame: bytes) -> None:
        if self.ended:
            self._wrong("something follows the end")
        self.ended, self.last = self._is_end(frame), frame
        found = TOKEN.search(frame)
        if problem := self._problem(frame, int(found[1]) if found else None):
            self._wrong(problem)
        if found:
            self._token(int(found[1]), float(found[2]))
            self._count(len(frame) + 2)

    def _token(self, number: int, said_at: float) -> None:
        if number != self.read:
            self._wrong(f"token {number} where {self.read} was next")
        self.read, now = number + 1, time.monotonic()
        if (half := self.seen.half) and not self.slow and self.last_at:
            half.gaps.append(now - self.last_at)
            half.delays.append(now - said_at)
        self.last_at = now

    def _count(self, length: int) -> None:
        if not self.slow:
            self.seen.told += 1
            self.seen.told_bytes += length

    def _finished(self) -> None:
        if self.read != self.seen.tokens or not self.ended:
            self._wrong(f"the stream stops behind token {self.read}: {self.last[:200]!r}")
        elif self.slow:
            self.seen.whole_slow += 1
        else:
            self.seen.whole += 1

    def _wrong(self, what: str) -> None:
        self.seen.problems.append(f"{'slow' if self.slow else 'fast'} reader: {what}")


@dataclass
class TaskReader(Reader):
    """Reads a task's events."""

    last_id: int = 0

    async def _begin(self, wire: Wire) -> None:
        body = {"prompt": self._prompt, "max_tokens": self.seen.tokens}
        found = PATH.search(_expected(202, await wire.ask(encoded("POST", "/v2/tasks", body))).body)
        if not found:
            raise Broken("no stream is named")
        _expected(200, await wire.begin(encoded("GET", found[1].decode())))

    def _is_end(self, frame: bytes) -> bool:
        return b"\nevent: end\n" in frame

    def _problem(self, frame: bytes, number: int | None) -> str | None:
        event, last = event_of(frame), self.last_id
        self.last_id = event.number
        if event.number <= last:
            return f"event {event.number} behind event {last}"
        index = NUMBER.search(event.data)
        if number is not None and (not index or int(index[1]) != number):
            return f"token {number} is numbered otherwise"
        return None


@dataclass
class ChatReader(Reader):
    """Reads a chat's chunks, as OpenAI's clients do."""

    async def _begin(self, wire: Wire) -> None:
        messages = [{"role": "user", "content": self._prompt}]
        body = {"model": MODEL, "messages": messages, "max_tokens": self.seen.tokens, "stream": True}
        _expected(200, await wire.begin(encoded("POST", "/v1/chat/completions", body)))

    def _is_end(self, frame: bytes) -> bool:
        return frame == b"data: [DONE]"


def _expected(status: int, answer: Answer) -> Answer:
    if answer.status != status:
        raise Broken(f"status {answer.status}, not {status}")
    return answer
