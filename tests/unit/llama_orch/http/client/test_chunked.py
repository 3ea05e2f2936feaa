"""The chunked decoder against h11."""

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.http.client.chunked import LINE_LIMIT, ChunkedBody

EXTENSIONS = st.sampled_from([b"", b";a=b", b"; note", b" "])
CHUNKS = st.lists(st.tuples(st.binary(min_size=1, max_size=40), EXTENSIONS), max_size=6)
TRAILERS = st.sampled_from([b"", b"x-sum: 1\r\n", b"a: 1\r\nb: 2\r\n"])


def encode(chunks: list[tuple[bytes, bytes]], trailers: bytes) -> bytes:
    return b"".join(b"%X%s\r\n%s\r\n" % (len(data), more, data) for data, more in chunks) + b"0\r\n%s\r\n" % trailers


def read(parts: list[bytes]) -> tuple[bytes, bool]:
    """Decode `parts`; return the body and whether it is complete."""
    body = ChunkedBody()
    found = b"".join(body.feed(part) for part in parts)
    return found, body.complete


def read_with_h11(data: bytes) -> bytes:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + data)
    found = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        found += bytes(event.data) if isinstance(event, h11.Data) else b""
    return found


@given(CHUNKS, TRAILERS, st.lists(st.integers(0, 500), max_size=10))
def test_decoding_matches_h11_for_any_slicing(
    chunks: list[tuple[bytes, bytes]], trailers: bytes, cuts: list[int]
) -> None:
    data = encode(chunks, trailers)
    ends = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    assert read([data[start:end] for start, end in pairwise(ends)]) == (read_with_h11(data), True)


@given(CHUNKS, TRAILERS, st.integers(1, 500))
def test_truncated_body_is_incomplete(chunks: list[tuple[bytes, bytes]], trailers: bytes, missing: int) -> None:
    data = encode(chunks, trailers)
    _found, complete = read([data[: max(0, len(data) - missing)]])
    assert not complete


def test_chunks_in_one_read_are_joined() -> None:
    assert ChunkedBody().feed(b"2\r\nab\r\n1\r\nc\r\n3\r\nd") == b"abcd"


def test_bytes_after_the_end_are_excess() -> None:
    assert read([b"1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n" + b"x" * 10_000]) == (b"a", True)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\na",
        b"+1\r\na",
        b"0x1\r\na",
        b"1_0\r\na",
        b" 1\r\na",
        b"1 1\r\na",
        b"1\r\nab\r\n",
        b"ffffffffffffffff\r\n",
        b"1" * (LINE_LIMIT + 1),
        b"data: hello\n\n\r\n",
    ],
)
def test_invalid_chunked_body_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="chunk"):
        read([data])


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_raise_only_value_error(parts: list[bytes]) -> None:
    body = ChunkedBody()
    for part in parts:
        try:
            body.feed(part)
        except ValueError:
            return
