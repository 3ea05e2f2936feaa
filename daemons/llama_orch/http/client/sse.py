"""Parse server-sent events from chunks of any size."""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
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
        self._lines = _Lines()

    def __aiter__(self) -> "_Events":
        return self

    async def __anext__(self) -> ServerSentEvent:
        while (event := self._lines.next_event()) is None:
            self._lines.feed(await anext(self._chunks))
        return event


class EventParser:
    """Parses the data of the events of one stream."""

    def __init__(self) -> None:
        self._lines = _Lines()

    def feed(self, chunk: bytes) -> Iterable[str]:
        """Return the data of each event that `chunk` completes, as `read_events` does.

        The iteration raises MalformedStream after the valid events.
        """
        if not self._lines.partial and chunk.endswith(b"\n\n") and len(chunk) <= EVENT_LIMIT:
            # nearly always: whole events of one line, for a tenth of the cost
            try:
                events = chunk.decode()[:-2].split("\n\n")
            except UnicodeDecodeError:
                pass
            else:
                if all(event.startswith("data: ") and not ("\n" in event or "\r" in event) for event in events):
                    return [event[6:] for event in events]
        self._lines.feed(chunk)
        return self._rest()

    def _rest(self) -> Iterator[str]:
        while event := self._lines.next_event():
            yield event.data


class _Lines:
    """Splits chunks into lines and events."""

    def __init__(self) -> None:
        self._partial_line = b""
        self._lines: list[bytes] = []
        self._size = 0
        self._ready: deque[ServerSentEvent] = deque()
        self._malformed: MalformedStream | None = None

    @property
    def partial(self) -> bool:
        """Whether an event has begun, or the stream is malformed."""
        return bool(self._partial_line or self._lines or self._ready or self._malformed)

    def next_event(self) -> ServerSentEvent | None:
        """Return the next complete event, or None. Raises MalformedStream after the valid events."""
        if self._ready:
            return self._ready.popleft()
        if self._malformed:
            raise self._malformed
        return None

    def feed(self, chunk: bytes) -> None:
        try:
            *complete, self._partial_line = (self._partial_line + chunk).split(b"\n")
            for line in complete:
                self._line(line.removesuffix(b"\r"))
            self._check_size(len(self._partial_line.removesuffix(b"\r")))
        except MalformedStream as error:  # first return the valid events before it
            self._malformed = error

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
