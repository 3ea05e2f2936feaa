"""Hot paths are served directly on h11. Other requests on the same connection are passed to hypercorn."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.exchange import Exchange, HotRoutes
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.serving import serve
from llama_orch.settings.api import BODY_LIMIT

TIMEOUT_S = 5.0


@dataclass
class Site:
    """A running server whose hot paths are an echo, an endless stream and a defect."""

    port: int = 0
    stop: trio.Event = field(default_factory=trio.Event)
    streaming: trio.Event = field(default_factory=trio.Event)
    disconnected: trio.Event = field(default_factory=trio.Event)

    async def echo(self, exchange: Exchange) -> None:
        await exchange.send(200, await exchange.body(), [("x-query", exchange.query.get("q", "none"))])

    async def endless(self, exchange: Exchange) -> None:
        await exchange.body()
        await exchange.open_stream(200, [("content-type", "text/plain")])
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.cancel_at_disconnect, exchange, nursery.cancel_scope)
                await exchange.write(b"first ")
                self.streaming.set()
                await trio.sleep_forever()
        finally:
            self.disconnected.set()

    async def cancel_at_disconnect(self, exchange: Exchange, scope: trio.CancelScope) -> None:
        await exchange.gone()
        scope.cancel()

    async def broken(self, _exchange: Exchange) -> None:
        raise RuntimeError("a defect")

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    running, routes = Site(), HotRoutes()
    routes.add("POST", "/echo", running.echo)
    routes.add("GET", "/endless", running.endless)
    routes.add("GET", "/broken", running.broken)
    app = create_app("test", list, CollectorRegistry())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running.port = listener.getsockname()[1]
        gate = Gate(app, Access(), routes)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, gate, [listener.dup()], shutdown=running.stop, drain_s=TIMEOUT_S))
            yield running
            running.stop.set()


async def read_until(stream: trio.SocketStream, mark: bytes) -> bytes:
    """Read until `mark` has arrived and return everything read."""
    received = b""
    with trio.fail_after(TIMEOUT_S):
        while mark not in received:
            data = await stream.receive_some()
            assert data, f"closed after {received!r}"
            received += data
    return received


async def read_to_end(stream: trio.SocketStream) -> bytes:
    """Read until the server closes the connection."""
    received = b""
    with trio.fail_after(TIMEOUT_S):
        while data := await stream.receive_some():
            received += data
    return received


def post(body: bytes, path: bytes = b"/echo", *headers: bytes) -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_connection_serves_requests_with_own_query_and_id():
    async with site() as running, await running.connect() as stream:
        for number in range(3):
            await stream.send_all(
                post(b"body %d" % number, b"/echo?q=%d" % number, b"X-Correlation-Id: id-%d" % number)
            )
            answer = await read_until(stream, b"body %d" % number)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"x-query: %d" % number in answer
            assert b"x-correlation-id: id-%d" % number in answer


@pytest.mark.parametrize(
    ("traceparent", "echoed"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"00-xyz", False),
    ],
)
async def test_valid_traceparent_is_echoed_and_invalid_one_is_not(traceparent: bytes, echoed: bool):
    async with site() as running, await running.connect() as stream:
        for request, mark in (
            (post(b"hot", b"/echo", b"traceparent: " + traceparent), b"hot"),
            (GET_HEALTH.replace(b"\r\n\r\n", b"\r\ntraceparent: " + traceparent + b"\r\n\r\n"), b'"ok"'),
        ):
            await stream.send_all(request)
            assert (b"traceparent: " + traceparent in await read_until(stream, mark)) == echoed


async def test_pipelined_requests_are_answered_in_order():
    async with site() as running, await running.connect() as stream:
        await stream.send_all(post(b"one") + post(b"two") + post(b"three"))
        answers = await read_until(stream, b"three")
        assert answers.index(b"one") < answers.index(b"two") < answers.index(b"three")


async def test_connection_switches_between_hot_and_other_paths():
    async with site() as running, await running.connect() as stream:
        await stream.send_all(post(b"hot"))
        await read_until(stream, b"hot")
        await stream.send_all(GET_HEALTH)
        assert b'"ok"' in await read_until(stream, b"}")
        await stream.send_all(post(b"hot again"))
        await read_until(stream, b"hot again")


async def test_request_pipelined_behind_hot_one_is_not_lost():
    async with site() as running, await running.connect() as stream:
        await stream.send_all(post(b"hot") + GET_HEALTH)
        answers = await read_until(stream, b'"ok"')
        assert answers.index(b"hot") < answers.index(b'"ok"')


@pytest.mark.parametrize("cut", [1, 7, 30, 60])
async def test_request_may_arrive_in_pieces(cut: int):
    request = post(b"in pieces")
    async with site() as running, await running.connect() as stream:
        await stream.send_all(request[:cut])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_all(request[cut:])
        assert b"in pieces" in await read_until(stream, b"in pieces")


@pytest.mark.parametrize("ending", [b"Connection: close", b"connection: Close"])
async def test_connection_close_header_closes_connection(ending: bytes):
    async with site() as running, await running.connect() as stream:
        await stream.send_all(post(b"last", b"/echo", ending))
        assert b"last" in await read_to_end(stream)


async def test_http_1_0_is_answered_and_closed():
    async with site() as running, await running.connect() as stream:
        await stream.send_all(b"POST /echo HTTP/1.0\r\nContent-Length: 3\r\n\r\nold")
        assert (await read_to_end(stream)).endswith(b"old")


async def test_expect_100_continue_is_answered():
    async with site() as running, await running.connect() as stream:
        head, _, body = post(b"big", b"/echo", b"Expect: 100-continue").partition(b"\r\n\r\n")
        await stream.send_all(head + b"\r\n\r\n")
        await read_until(stream, b"100")
        await stream.send_all(body)
        assert b"big" in await read_until(stream, b"big")


async def test_malformed_http_is_refused_and_closed():
    async with site() as running, await running.connect() as stream:
        await stream.send_all(b"POST /echo HTTP/1.1\r\nno colon here\r\n\r\n")
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 400")


async def test_endless_head_is_refused_and_closed():
    async with site() as running, await running.connect() as stream:
        await stream.send_all(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 70_000)
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 431")


async def test_oversized_body_is_refused_with_413():
    async with site() as running, await running.connect() as stream:
        await stream.send_all(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"80000\r\n" + b"x" * 0x80000 + b"\r\n"
        for _ in range(BODY_LIMIT // 0x80000 + 1):  # half a MiB above the limit
            await stream.send_all(chunk)
        assert (await read_until(stream, b"}")).startswith(b"HTTP/1.1 413")


async def test_handler_notices_client_disconnect():
    async with site() as running:
        stream = await running.connect()
        await stream.send_all(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await read_until(stream, b"first")
        await stream.aclose()
        with trio.fail_after(TIMEOUT_S):
            await running.disconnected.wait()


async def test_handler_defect_is_500_in_common_error_shape():
    async with site() as running, await running.connect() as stream:
        await stream.send_all(b"GET /broken HTTP/1.1\r\nHost: localhost\r\nX-Correlation-Id: find-me\r\n\r\n")
        answer = await read_until(stream, b"}")
        assert answer.startswith(b"HTTP/1.1 500")
        assert b'"code":"INTERNAL"' in answer
        assert b'"correlation_id":"find-me"' in answer


async def test_stop_closes_idle_connections():
    async with site() as running, await running.connect() as used, await running.connect() as fresh:
        await used.send_all(post(b"done"))
        await read_until(used, b"done")
        running.stop.set()
        assert await read_to_end(used) == b""
        assert await read_to_end(fresh) == b""


async def test_stop_lets_stream_continue_until_drain_limit():
    async with site() as running, await running.connect() as stream:
        await stream.send_all(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await read_until(stream, b"first")
        running.stop.set()
        with trio.move_on_after(0.2) as still_open:
            await stream.receive_some()
        assert still_open.cancelled_caught
