"""Reading server-sent events, whatever the grain in which their bytes come."""

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


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEvent]:
    """Each event that has data, in turn; comments are left out, and so is an event that the end cuts off.

    Raises MalformedStream for an event of more than EVENT_LIMIT bytes or for bytes that are not UTF-8.
    """
    rest = b""
    lines: list[bytes] = []
    size = 0
    async for chunk in chunks:
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            stripped = line.rstrip(b"\r")
            if stripped:
                lines.append(stripped)
                size += len(stripped)
            elif event := _event(lines):
                yield event
            if not stripped:
                lines, size = [], 0
        if size + len(rest) > EVENT_LIMIT:
            raise MalformedStream(f"an event is longer than {EVENT_LIMIT} bytes")


def _event(lines: list[bytes]) -> ServerSentEvent | None:
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
