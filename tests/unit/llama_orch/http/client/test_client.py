"""The HTTP client against a real server on loopback with all kinds of failures."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import h11
import pytest
import trio

from llama_orch.http.client import connecting
from llama_orch.http.client.client import UpstreamError, UpstreamTimeout, fetch, fetch_json, request

Talk = Callable[[trio.SocketStream], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
NEVER = math.inf
LARGE = 32 << 20


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[str]:
    """Run a server that handles each connection with `talk`; yield its URL."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await talk(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def read_request(stream: trio.SocketStream) -> tuple[h11.Request, bytes]:
    """Read a whole request."""
    connection, head, body = h11.Connection(h11.SERVER), None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head
            return head, body


def answer_with(*pieces: bytes, before: bool = True) -> Talk:
    """Return a handler that reads the request if `before`, sends `pieces` and closes."""

    async def talk(stream: trio.SocketStream) -> None:
        if before:
            await read_request(stream)
        for piece in pieces:
            await stream.send_all(piece)

    return talk


async def stall(stream: trio.SocketStream, *pieces: bytes) -> None:
    """Return a handler that sends `pieces` and then waits until the client leaves."""
    await read_request(stream)
    for piece in pieces:
        await stream.send_all(piece)
    assert await stream.receive_some() == b""


def stall_after(*pieces: bytes) -> Talk:
    return lambda stream: stall(stream, *pieces)


async def test_request_arrives_unchanged() -> None:
    seen: list[tuple[h11.Request, bytes]] = []

    async def talk(stream: trio.SocketStream) -> None:
        seen.append(await read_request(stream))
        await stream.send_all(HEAD + b"Content-Length: 2\r\n\r\n{}")

    async with (
        server(talk) as url,
        request("POST", f"{url}/a?b=c", headers={"x-name": "v"}, body=b"body") as response,
    ):
        assert (response.status, response.headers["content-type"]) == (200, "application/json")
        assert await response.read() == b"{}"
    ((head, body),) = seen
    assert (head.method, head.target, body) == (b"POST", b"/a?b=c", b"body")
    headers = dict(head.headers)
    assert (headers[b"x-name"], headers[b"content-length"], headers[b"connection"]) == (b"v", b"4", b"close")
    assert headers[b"host"].startswith(b"127.0.0.1:")


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD + b'Content-Length: 7\r\n\r\n{"a":1}',),
        (HEAD, b'Content-Length: 7\r\n\r\n{"a"', b":1}"),
        (HEAD + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n', b"3\r\n:1}\r\n0\r\n\r\n"),
        (HEAD + b'\r\n{"a":1}',),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b'Content-Length: 7\r\n\r\n{"a":1}',),
        (b'HTTP/1.0 200 OK\r\n\r\n{"a":1}',),
    ],
)
async def test_answer_is_read_in_any_framing(pieces: tuple[bytes, ...]) -> None:
    async with server(answer_with(*pieces)) as url:
        assert await fetch_json(url, limit_s=10) == (200, {"a": 1})


async def failure(url: str) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await fetch_json(url, limit_s=10)
    assert not isinstance(caught.value, UpstreamTimeout)
    return caught.value


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((), "before the answer was complete"),
        ((HEAD,), "before the answer was complete"),
        ((HEAD + b"Content-Length: 9\r\n\r\n{}",), "before the answer was complete"),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",), "before the answer was complete"),
        ((b"SSH-2.0-OpenSSH_9.2\r\n\r\n",), "not HTTP"),
        ((HEAD + b"x" * 100_000,), "not HTTP"),
        ((HEAD + b"Content-Length: 4\r\n\r\nnope",), "not JSON"),
    ],
)
async def test_broken_answer_has_a_specific_message(pieces: tuple[bytes, ...], words: str) -> None:
    async with server(answer_with(*pieces)) as url:
        assert words in str(await failure(url))


async def test_refused_connection_is_reported_once() -> None:
    async with server(answer_with()) as url:
        pass
    assert str(await failure(url)) == f"cannot connect to {url.removeprefix('http://')}: Connection refused"


async def test_reset_is_upstream_error() -> None:
    async def reset(stream: trio.SocketStream) -> None:
        await read_request(stream)
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)

    async with server(reset) as url:
        assert str(await failure(url)) == "the connection broke off"


@pytest.mark.parametrize(
    "url",
    [
        "http://a..b/",
        f"http://{'x' * 70}/",
        "http://127.0.0.1:99999/",
        "http://",
        "ftp://127.0.0.1/",
        "http://127.0.0.1:1/a b",
    ],
)
async def test_unsupported_url_is_upstream_error(url: str) -> None:
    await failure(url)


async def test_https_url_is_never_sent_in_clear() -> None:
    seen = []

    async def hear(stream: trio.SocketStream) -> None:
        seen.append(await stream.receive_some())

    async with server(hear) as url:
        assert "TLS handshake with 127" in str(await failure(url.replace("http:", "https:")))
    assert seen[0][:2] == b"\x16\x03", "a handshake, and nothing of the request"


async def test_invalid_header_is_upstream_error() -> None:
    with pytest.raises(UpstreamError, match="not valid HTTP"):
        await fetch("http://127.0.0.1:1/", limit_s=1, headers={"authorization": "Bearer a\r\nb: c"})


async def test_refusal_is_read_if_body_cannot_be_sent() -> None:
    """A server that refuses a large request answers and closes before it has read the body."""
    refusal = HEAD.replace(b"200 OK", b"401 Unauthorized") + b"Content-Length: 2\r\n\r\n{}"
    async with server(answer_with(refusal, before=False)) as url, request("POST", url, body=b"x" * LARGE) as response:
        assert (response.status, await response.read()) == (401, b"{}")


async def test_head_timeout() -> None:
    async with server(stall_after()) as url:
        with pytest.raises(UpstreamTimeout, match=r"no answer within 0\.05 s"):
            async with request("GET", url, head_s=0.05):
                raise AssertionError("there is no answer")


async def test_body_timeout_is_the_callers() -> None:
    async with server(stall_after(HEAD + b"Content-Length: 2\r\n\r\n{")) as url:
        with pytest.raises(UpstreamTimeout, match="no complete answer"):
            await fetch(url, limit_s=0.05)
        async with request("GET", url) as response:
            with pytest.raises(UpstreamTimeout, match="no complete answer"):
                await response.read(limit_s=0.05)


async def test_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    with pytest.raises(UpstreamTimeout, match=r"no connection to 192\.0\.2\.1:80 within 0\.01 s"):
        async with request("GET", "http://192.0.2.1", connect_s=0.01):
            raise AssertionError("there is no connection")


async def test_endless_answer_stops_at_size_limit() -> None:
    async def endless(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(HEAD + b"\r\n")
        try:
            while True:
                await stream.send_all(b"x" * 65536)
        except trio.BrokenResourceError:
            return

    async with server(endless) as url:
        with pytest.raises(UpstreamError, match="longer than 1000 bytes"):
            await fetch(url, limit_s=NEVER, size=1000)


async def leave(url: str, how: str) -> None:
    """Start to read a stream and leave it by break, exception or cancel."""
    with trio.CancelScope() as scope:
        async with request("POST", url, body=b"{}") as response:
            async for chunk in response.chunks():
                assert chunk == b"token"
                if how == "break":
                    break
                if how == "raise":
                    raise KeyError(how)
                scope.cancel()


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
async def test_leaving_exchange_closes_connection(how: str) -> None:
    """Engines free the slot when they see the connection close."""
    seen = trio.Event()

    async def stream_then_watch(stream: trio.SocketStream) -> None:
        await stall(stream, HEAD + b"\r\ntoken")
        seen.set()

    async with server(stream_then_watch) as url:
        try:
            await leave(url, how)
        except KeyError:
            assert how == "raise"
        with trio.fail_after(5):
            await seen.wait()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(113, "No route to host"), "No route to host"),
        (OSError("all attempts failed"), "all attempts failed"),
        (OSError(-2, "Name or service not known"), "Name or service not known"),
    ],
)
def test_failed_connection_has_the_system_error(error: OSError, words: str) -> None:
    assert connecting._reason(error) == words
    several = OSError("all attempts to connect failed")
    several.__cause__ = ExceptionGroup("attempts", [error, error])
    assert connecting._reason(several) == words
