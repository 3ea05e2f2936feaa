"""Reading server-sent events, whatever the grain in which their bytes come."""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

EVENT_LIMIT = 4 << 20


class MalformedStream(Exception):
    """The other side sends something that is no event stream."""


@dataclass(frozen=True)
class ServerSentEvent:
    """One event; its lines of data are joined as the HTML standard has it."""

    name: str
    data: str
    id: str = ""


def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEvent]:
    """Each event that has data, in turn; comments are left out, and so is an event that the end cuts off.

    The iterator raises MalformedStream for an event of more than EVENT_LIMIT bytes or for bytes that are not UTF-8,
    and whatever `chunks` raises.
    """
    return _Events(chunks)


class _Events:
    """An iterator and no generator: see the client's own."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._lines: list[bytes] = []
        self._size = 0
        self._ready: deque[ServerSentEvent] = deque()
        self._malformed: MalformedStream | None = None

    def __aiter__(self) -> "_Events":
        return self

    async def __anext__(self) -> ServerSentEvent:
        while not self._ready:
            if self._malformed:
                raise self._malformed
            chunk = await anext(self._chunks)
            try:
                self._feed(chunk)
            except MalformedStream as error:  # the events before it in the same chunk are good
                self._malformed = error
        return self._ready.popleft()

    def _feed(self, chunk: bytes) -> None:
        *complete, self._rest = (self._rest + chunk).split(b"\n")
        for line in complete:
            self._line(line.removesuffix(b"\r"))
        self._limit(len(self._rest.removesuffix(b"\r")))

    def _line(self, line: bytes) -> None:
        if line:
            self._limit(len(line))
            self._lines.append(line)
            self._size += len(line)
            return
        if event := _event(self._lines):
            self._ready.append(event)
        self._lines, self._size = [], 0

    def _limit(self, more: int) -> None:
        if self._size + more > EVENT_LIMIT:
            raise MalformedStream(f"an event is longer than {EVENT_LIMIT} bytes")


def _event(lines: list[bytes]) -> ServerSentEvent | None:
    if len(lines) == 1 and lines[0].startswith(b"data:"):  # what engines send, at half the cost
        return ServerSentEvent("message", _text(lines[0][5:].removeprefix(b" ")))
    fields: dict[bytes, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields.setdefault(name, []).append(_text(value.removeprefix(b" ")))
    if b"data" not in fields:
        return None
    kind, number = (fields.get(key, [""])[-1] for key in (b"event", b"id"))
    return ServerSentEvent(kind or "message", "\n".join(fields[b"data"]), number)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise MalformedStream("an event is not UTF-8 text") from error
