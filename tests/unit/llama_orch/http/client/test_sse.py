"""The parser of server-sent events."""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama_orch.http.client import sse
from llama_orch.http.client.sse import MalformedStream, ServerSentEvent, read_events

LINE = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data",
        b"data:  two blanks",
        b"event: token",
        b"id: 7",
        b": comment",
        b"",
        b"",
        b"\xc3\xa9",
        b"data: \xff",
    ]
) | st.binary(max_size=12)
STREAMS = st.lists(st.tuples(LINE, st.sampled_from([b"\n", b"\r\n"]))).map(lambda lines: b"".join(map(b"".join, lines)))


async def each(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def read(*chunks: bytes) -> tuple[list[ServerSentEvent], str | None]:
    """Return the events and the final error. Runs without an event loop, since all chunks are available."""
    found: list[ServerSentEvent] = []

    async def collect() -> None:
        async for event in read_events(each(chunks)):
            found.append(event)

    coroutine = collect()
    try:
        coroutine.send(None)
    except StopIteration:
        return found, None
    except MalformedStream as error:
        return found, str(error)
    raise AssertionError("nothing here waits")


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@given(STREAMS, st.lists(st.integers(min_value=0), max_size=8))
@example(b"data: a\r\n\r\n", [8, 9, 10])
@example(b"data: good\n\ndata: \xff\n\n", [])
def test_events_are_independent_of_chunking(stream: bytes, places: list[int]) -> None:
    assert read(*cut(stream, places)) == read(*cut(stream, list(range(len(stream)))))


@given(STREAMS, st.lists(st.integers(min_value=0), max_size=8))
def test_limit_is_independent_of_chunking(stream: bytes, places: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "EVENT_LIMIT", 10)
        events, error = read(*cut(stream, places))
        assert (events, error) == read(*cut(stream, list(range(len(stream)))))
    assert all(len(event.data) <= 10 for event in events)


@given(
    st.lists(st.tuples(st.text("abé\U0001f600 :", max_size=9), st.sampled_from(["token", "end"]), st.integers(0, 99)))
)
def test_events_round_trip(sent: list[tuple[str, str, int]]) -> None:
    stream = "".join(f"event: {name}\nid: {number}\ndata: {data}\n\n" for data, name, number in sent)
    expected = [ServerSentEvent(name, data, str(number)) for data, name, number in sent]
    assert read(stream.encode()) == (expected, None)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\ndata: two\n\n", [ServerSentEvent("message", "one\ntwo")]),
        (b": keep-alive\n\ndata: a\n\n", [ServerSentEvent("message", "a")]),
        (b"event: end\nid: 4\n\n", []),
        (b"data: cut off", []),
        (b"data: cut off\n", []),
        (b"data\n\n", [ServerSentEvent("message", "")]),
        (b"unknown: x\ndata: a\n\n", [ServerSentEvent("message", "a")]),
    ],
)
def test_html_standard_rules(stream: bytes, events: list[ServerSentEvent]) -> None:
    assert read(stream) == (events, None)


def test_endless_line_is_refused_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_LIMIT", 1000)
    assert read(*[b"x" * 100] * 20)[1] == "an event is longer than 1000 bytes"
    assert read(*[b"data: x\n"] * 200)[1] == "an event is longer than 1000 bytes"


def test_events_before_a_malformed_one_are_returned() -> None:
    events, error = read(b"data: good\n\ndata: \xff\n\n")
    assert [event.data for event in events] == ["good"]
    assert error == "an event is not UTF-8 text"
