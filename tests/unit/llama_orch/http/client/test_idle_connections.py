"""Reuse of idle connections over real sockets."""

import contextlib
import math
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import h11
import pytest
import trio
import trio.lowlevel
import trio.testing
from prometheus_client import CollectorRegistry

from llama_orch.http.client.client import IdleConnections, Unreachable, UpstreamError, UpstreamTimeout, fetch, request
from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.exchange import Exchange, HotRoutes
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.serving import serve

LIMIT_S = 10
OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"Content-Length: 2\r\n\r\n{}"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"
CUT = b""
"""The server closes without an answer."""


class Last(bytes):
    """An answer after which the server closes."""


RESET = struct.pack("ii", 1, 0)


@dataclass
class Server:
    """Answers each request with the next of `answers` and numbers the connections."""

    answers: list[bytes]
    url: str = ""
    connections: list[trio.SocketStream] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    """The connection number of each complete request."""
    heads: list[dict[bytes, bytes]] = field(default_factory=list)
    left: list[trio.Event] = field(default_factory=list)

    async def handle(self, stream: trio.SocketStream) -> None:
        number = len(self.connections)
        self.connections.append(stream)
        self.left.append(trio.Event())
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                while await self._request(stream, number) and (answer := self.answers.pop(0)):
                    await stream.send_all(answer)
                    if isinstance(answer, Last):
                        break
        self.left[number].set()

    async def _request(self, stream: trio.SocketStream, number: int) -> bool:
        """Read one request; return False if the client has left."""
        connection = h11.Connection(h11.SERVER)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Request):
                self.heads.append(dict(event.headers))
            elif isinstance(event, h11.ConnectionClosed):
                return False
            elif isinstance(event, h11.EndOfMessage):
                self.served.append(number)
                return True

    async def client_left(self, number: int) -> None:
        with trio.fail_after(LIMIT_S):
            await self.left[number].wait()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[Server]:
    server = Server(list(answers))
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, server.handle, [listener])
        yield server
        nursery.cancel_scope.cancel()


async def ask(server: Server, connections: IdleConnections, *, body: bytes = b"", repeatable: bool = False) -> bytes:
    """Send one POST and read its answer to the end."""
    asking = request("POST", server.url, body=body, connections=connections, repeatable=repeatable)
    async with asking as response:
        return await response.read()


@pytest.mark.parametrize("answer", [SHORT, CHUNKED, NOTHING])
async def test_connection_is_reused(answer: bytes) -> None:
    async with serving(*[answer] * 3) as server, IdleConnections() as connections:
        for _ in range(3):
            assert await ask(server, connections) == (b"" if answer is NOTHING else b"{}")
        assert server.served == [0, 0, 0]
        assert [head[b"connection"] for head in server.heads] == [b"keep-alive"] * 3


@pytest.mark.parametrize("answer", [NOTHING, OK + b"Content-Length: 0\r\n\r\n"])
async def test_connection_is_reused_after_empty_answer(answer: bytes) -> None:
    async with serving(answer, answer) as server, IdleConnections() as connections:
        for _ in range(2):
            async with request("POST", server.url, connections=connections):
                pass
        assert server.served == [0, 0]


async def test_without_pool_each_exchange_connects() -> None:
    async with serving(SHORT, SHORT) as server:
        for _ in range(2):
            await fetch(server.url, limit_s=LIMIT_S)
        assert server.served == [0, 1]
        assert [head[b"connection"] for head in server.heads] == [b"close"] * 2


async def test_concurrent_exchanges_have_own_connections() -> None:
    async with serving(SHORT, SHORT, SHORT) as server, IdleConnections() as connections:
        first = request("GET", server.url, connections=connections)
        async with first as one, request("GET", server.url, connections=connections) as two:
            assert (await one.read(), await two.read()) == (b"{}", b"{}")
        assert (server.served, connections.idle) == ([0, 1], 2)
        await ask(server, connections)
        assert server.served[2] == 0, "the one that came back last is taken first"


async def test_connection_is_reused_only_for_its_origin() -> None:
    async with serving(SHORT) as one, serving(SHORT) as two, IdleConnections() as connections:
        await ask(one, connections)
        await ask(two, connections)
        assert (one.served, two.served, connections.idle) == ([0], [0], 2)


LONG_CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
LONG = OK + b"Content-Length: 4\r\n\r\n{}"


@pytest.mark.parametrize("answer", [LONG, LONG_CHUNKED])
@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
async def test_unread_answer_closes_connection(answer: bytes, how: str) -> None:
    """Closing the connection cancels the request."""
    async with serving(answer, SHORT) as server, IdleConnections() as connections:
        with trio.CancelScope() as scope, contextlib.suppress(KeyError):
            async with request("POST", server.url, connections=connections) as response:
                async for _ in response.chunks():
                    if how == "break":
                        break
                    if how == "raise":
                        raise KeyError
                    scope.cancel()
        assert connections.idle == 0
        await server.client_left(0)
        await ask(server, connections)
        assert server.served == [0, 1]


async def test_timeout_closes_connection() -> None:
    async with serving(SHORT, b"HTTP/1.1 ") as server, IdleConnections() as connections:
        await ask(server, connections)
        with pytest.raises(UpstreamTimeout):
            async with request("GET", server.url, connections=connections, repeatable=True, head_s=0.05):
                raise AssertionError("there is no answer")
        await server.client_left(0)
        assert server.served == [0, 0], "and asks no second time"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        SHORT + b"more",
        CHUNKED + b"more",
    ],
)
async def test_connection_close_is_honoured(answer: bytes) -> None:
    async with serving(answer, SHORT) as server, IdleConnections() as connections:
        await ask(server, connections)
        assert connections.idle == 0
        await ask(server, connections)
        assert server.served == [0, 1]


async def test_unread_body_is_not_the_next_answer() -> None:
    for answer in (SHORT, CHUNKED, OK + b"\r\n"):
        async with serving(answer) as server, IdleConnections() as connections:
            async with request("POST", server.url, connections=connections):
                pass
            assert connections.idle == 0


async def test_closed_idle_connection_is_detected() -> None:
    """This applies to non-repeatable requests too, since nothing was sent."""
    for how in ("end", "reset", "speak"):
        async with serving(SHORT, SHORT) as server, IdleConnections() as connections:
            await ask(server, connections)
            await trio.testing.wait_all_tasks_blocked()
            stream = server.connections[0]
            if how == "speak":
                await stream.send_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            else:
                if how == "reset":
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                await stream.aclose()
            await ask(server, connections)
            assert server.served == [0, 1]


async def test_only_repeatable_request_is_retried() -> None:
    async with serving(SHORT, CUT, SHORT) as server, IdleConnections() as connections:
        await ask(server, connections)
        assert await ask(server, connections, repeatable=True) == b"{}"
        assert server.served == [0, 0, 1]
    async with serving(SHORT, CUT) as server, IdleConnections() as connections:
        await ask(server, connections)
        with pytest.raises(UpstreamError) as caught:
            await ask(server, connections)
        assert not isinstance(caught.value, Unreachable), "it may have been served"
        assert server.served == [0, 0]


async def test_request_is_retried_at_most_once() -> None:
    async with serving(SHORT, CUT, CUT) as server, IdleConnections() as connections:
        await ask(server, connections)
        with pytest.raises(UpstreamError, match="before the answer was complete"):
            await ask(server, connections, repeatable=True)
        assert server.served == [0, 0, 1]


async def test_broken_answer_is_not_retried() -> None:
    async with serving(SHORT, Last(b"HTTP/1.1 200")) as server, IdleConnections() as connections:
        await ask(server, connections)
        with pytest.raises(UpstreamError, match="before the answer was complete"):
            await ask(server, connections, repeatable=True)
        assert server.served == [0, 0]


async def test_unsent_request_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks between the check and the send."""
    async with serving(SHORT, SHORT, SHORT, SHORT) as server, IdleConnections() as connections:
        for repeatable in (True, False):
            await ask(server, connections)
            stream = server.connections[-1]
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await stream.aclose()
            with monkeypatch.context() as patch:
                patch.setattr(type(stream.socket), "is_readable", lambda _: False)
                assert await ask(server, connections, repeatable=repeatable) == b"{}"


async def test_idle_connections_are_limited() -> None:
    async with serving(*[SHORT] * 5) as server, IdleConnections(limit=2) as connections:
        everybody = trio.Event()
        reading = 0

        async def one() -> None:
            nonlocal reading
            async with request("GET", server.url, connections=connections) as response:
                reading += 1
                if reading == 5:
                    everybody.set()
                await everybody.wait()
                await response.read()

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
        assert connections.idle == 2
        await trio.testing.wait_all_tasks_blocked()
        assert sum(left.is_set() for left in server.left) == 3


async def test_idle_connection_expires(mock_clock: trio.testing.MockClock) -> None:
    async with serving(*[SHORT] * 3) as server, IdleConnections(limit_s=30) as connections:
        await ask(server, connections)
        mock_clock.jump(29)
        await ask(server, connections)
        mock_clock.jump(31)
        await ask(server, connections)
        assert server.served == [0, 0, 1]
        await server.left[0].wait()


async def test_unused_origin_expires_during_other_requests(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with serving(SHORT) as gone, serving(SHORT) as other, IdleConnections(limit_s=30) as connections:
        await ask(gone, connections)
        mock_clock.jump(31)
        await ask(other, connections)
        await gone.left[0].wait()


@pytest.mark.parametrize(("told", "again"), [(b"timeout=5, max=100", True), (b"timeout=1", False), (b"nonsense", True)])
async def test_keep_alive_timeout_is_honoured(told: bytes, again: bool, mock_clock: trio.testing.MockClock) -> None:
    answer = OK + b"Keep-Alive: " + told + b"\r\nContent-Length: 2\r\n\r\n{}"
    async with serving(answer, answer, SHORT) as server, IdleConnections() as connections:
        await ask(server, connections)
        mock_clock.jump(3.9)
        await ask(server, connections)
        assert server.served == ([0, 0] if again else [0, 1])
        mock_clock.jump(4.1)
        await ask(server, connections)
        assert (server.served[2] == server.served[1]) == (told == b"nonsense")


async def test_aclose_closes_idle_and_later_connections() -> None:
    async with serving(SHORT, SHORT) as server:
        connections = IdleConnections()
        async with request("GET", server.url, connections=connections) as late:
            async with connections:
                await ask(server, connections)
            await server.client_left(1)
            assert await late.read() == b"{}"
        assert connections.idle == 0
        await server.client_left(0)


async def test_get_is_repeatable() -> None:
    async with serving(SHORT, CUT, SHORT) as server, IdleConnections() as connections:
        for _ in range(2):
            assert await fetch(server.url, limit_s=LIMIT_S, connections=connections) == (200, b"{}")
        assert server.served == [0, 0, 1]


async def test_server_reuses_connection_after_stream() -> None:
    """The connection survives chunked answers of hot paths and of Quart."""
    hot = HotRoutes()

    async def stream(exchange: Exchange) -> None:
        await exchange.body()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.gone)
            await exchange.open_stream(200, ())
            for _ in range(3):
                await exchange.write(b"piece ")
            await exchange.finish()
            nursery.cancel_scope.cancel()

    hot.add("POST", "/stream", stream)
    app = create_app("test", list, CollectorRegistry())
    stop = trio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with trio.open_nursery() as nursery, IdleConnections() as connections:
            await nursery.start(
                partial(serve, Gate(app, Access(), hot), [listener.dup()], shutdown=stop, drain_s=math.inf)
            )
            ports = []
            for method, path in [("POST", "/stream")] * 3 + [("GET", "/health")] * 2 + [("POST", "/stream")] * 2:
                async with request(method, url + path, body=b"{}", connections=connections) as response:
                    ports.append(response._stream.socket.getsockname())  # type: ignore[attr-defined]
                    assert await response.read() == (b"piece " * 3 if method == "POST" else b'{"status":"ok"}')
            assert len(set(ports)) == 1
            await connections.aclose()
            stop.set()
