"""Parse server-sent events from chunks of any size."""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

EVENT_LIMIT = 4 << 20


class MalformedStream(Exception):
    """The bytes are not a valid event stream."""


@dataclass(frozen=True)
class ServerSentEvent:
    """One event. Its data lines are joined as the HTML standard requires."""

    name: str
    data: str
    id: str = ""


def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEvent]:
    """Iterate over the events that have data. Comments are skipped, and so is an incomplete event at the end.

    The iterator raises MalformedStream for an event above EVENT_LIMIT bytes or for invalid UTF-8, and passes on the
    errors of `chunks`.
    """
    return _Events(chunks)


class _Events:
    """An iterator, not a generator, for the reason given in answer.py."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._partial_line = b""
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
            except MalformedStream as error:  # first return the valid events before it
                self._malformed = error
        return self._ready.popleft()

    def _feed(self, chunk: bytes) -> None:
        *complete, self._partial_line = (self._partial_line + chunk).split(b"\n")
        for line in complete:
            self._line(line.removesuffix(b"\r"))
        self._check_size(len(self._partial_line.removesuffix(b"\r")))

    def _line(self, line: bytes) -> None:
        if line:
            self._check_size(len(line))
            self._lines.append(line)
            self._size += len(line)
            return
        if event := _event(self._lines):
            self._ready.append(event)
        self._lines, self._size = [], 0

    def _check_size(self, more: int) -> None:
        if self._size + more > EVENT_LIMIT:
            raise MalformedStream(f"an event is longer than {EVENT_LIMIT} bytes")


def _event(lines: list[bytes]) -> ServerSentEvent | None:
    if len(lines) == 1 and lines[0].startswith(b"data:"):  # the common case, at half the cost
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
