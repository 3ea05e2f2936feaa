"""What the quick parser accepts is what h11 accepts, with the same result; it leaves everything else to h11."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.http.server.plain_exchange import plain_request

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


def by_h11(received: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(received)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return event


def test_usual_request_is_parsed_with_its_rest():
    found = plain_request(HEAD + b"Content-Length: 2\r\nX-Two:  words here \r\n\r\n{}GET ")
    assert found
    assert (found.method, found.target, found.length, found.closes) == (b"POST", b"/v1/chat/completions", 2, False)
    assert found.headers[1:] == [(b"content-length", b"2"), (b"x-two", b"words here")]
    assert found.rest == b"{}GET "


@pytest.mark.parametrize(
    "lines",
    [
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: upgrade\r\n",
        b"Host: other\r\n",
        b"Content-Length: 1\r\nContent-Length: 1\r\n",
        b"Content-Length: +1\r\n",
        b"Content-Length: 1, 1\r\n",
        b"Content-Length: 1111111111111111\r\n",
        b"X-Folded: a\r\n b\r\n",
        b"X-Space : a\r\n",
        b"X-Null: a\0b\r\n",
        b"X-Bare: a\nb\r\n",
        b"X-Return: a\rb\r\n",
        b": empty\r\n",
        b"no colon\r\n",
        b"X-Latin: \xe9\r\n",
    ],
)
def test_unusual_head_is_left_to_h11(lines: bytes):
    assert plain_request(HEAD + lines + b"\r\n") is None


@pytest.mark.parametrize(
    "received",
    [
        HEAD,
        HEAD.replace(b"1.1", b"1.0") + b"\r\n",
        HEAD.replace(b"\r\n", b"\n") + b"\n",
        b"POST / HTTP/1.1\r\nAccept: */*\r\n\r\n",
        b"post / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_incomplete_or_other_request_is_left_to_h11(received: bytes):
    assert plain_request(received) is None


@given(
    st.sampled_from([b"GET", b"POST", b"HEAD", b"DELETE"]),
    st.from_regex(rb"\A/[\x21-\x7e]{0,20}\Z"),
    st.lists(
        st.tuples(
            st.sampled_from([b"Host", b"Accept", b"X-A", b"Content-Length", b"Connection", b"connection", b"TE"]),
            st.one_of(
                st.sampled_from([b"close", b"keep-alive", b"0", b"12", b"trailers"]),
                st.binary(max_size=6),
            ),
        ),
        max_size=5,
    ),
)
def test_accepted_request_is_what_h11_reads(method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]):
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    received = b"%b %b HTTP/1.1\r\nhost: x\r\n%b\r\n" % (method, target, lines)
    if found := plain_request(received):
        request = by_h11(received)
        assert (found.method, found.target, found.headers) == (request.method, request.target, list(request.headers))
