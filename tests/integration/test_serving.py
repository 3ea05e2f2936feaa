"""The HTTP server on real sockets: disconnects, stalled readers, malformed requests and graceful stop."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from llama_orch.http.server import hot_exchange, http1
from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.exchange import Exchange, HotRoutes
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.serving import serve
from llama_orch.http.tls.secured import abort
from llama_orch.service.watchdog import Pulse
from llama_orch.settings.types import Secret

LIMIT_S = 10
LARGE = 8 << 20
OPEN = Access()


class Served:
    """A running server: its port, the event that stops it, and events that its handlers set or wait for."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.stop = trio.Event()
        self.ended = trio.Event()
        self.streaming = trio.Event()
        self.finish = trio.Event()
        self.disconnected = trio.Event()


def routes(served: Served) -> HotRoutes:
    """Return one hot path per kind of handler."""

    async def hello(exchange: Exchange) -> None:
        await exchange.send(200, b"hello")

    async def length(exchange: Exchange) -> None:
        await exchange.send_json(200, len(await exchange.body(limit=100)))

    async def fail(_exchange: Exchange) -> None:
        raise RuntimeError("secret detail")

    async def stream(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.open_stream(200, ())
        await exchange.write(b"begun")
        served.streaming.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_at_disconnect, exchange, nursery.cancel_scope)
            await served.finish.wait()
            await exchange.write(b"ended")
            await exchange.finish()
            nursery.cancel_scope.cancel()

    async def cancel_at_disconnect(exchange: Exchange, scope: trio.CancelScope) -> None:
        await exchange.gone()
        served.disconnected.set()
        scope.cancel()

    async def flood(exchange: Exchange) -> None:
        await exchange.open_stream(200, ())
        served.streaming.set()
        while not served.ended.is_set():
            await exchange.write(b"x" * (1 << 20))

    async def cut(exchange: Exchange) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, exchange)
            await served.finish.wait()
            exchange.abort()
            nursery.cancel_scope.cancel()
        served.disconnected.set()

    hot = HotRoutes()
    for method, path, handler in (
        ("GET", "/hello", hello),
        ("POST", "/length", length),
        ("GET", "/fail", fail),
        ("GET", "/stream", stream),
        ("GET", "/flood", flood),
        ("GET", "/cut", cut),
    ):
        hot.add(method, path, handler)
    return hot


@asynccontextmanager
async def running(access: Access = OPEN, drain_s: float = LIMIT_S) -> AsyncIterator[Served]:
    """Run a server on a free port. At exit it is stopped and must end within LIMIT_S."""
    listener = socket.create_server(("127.0.0.1", 0))
    served = Served(listener.getsockname()[1])
    app = create_app("test", list, CollectorRegistry())

    @app.get("/quart-fails")
    async def quart_fails() -> str:
        raise RuntimeError("secret detail")

    async def run_server(task_status: trio.TaskStatus[None]) -> None:
        gate = Gate(app, access, routes(served))
        await serve(gate, [listener], shutdown=served.stop, drain_s=drain_s, task_status=task_status)
        served.ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run_server)
        yield served
        served.stop.set()
        with trio.fail_after(LIMIT_S):
            await served.ended.wait()


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[trio.SocketStream]:
    stream = await trio.open_tcp_stream("127.0.0.1", served.port)
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def read_to_end(stream: trio.SocketStream) -> bytes:
    """Read until the server closes. Raises trio.TooSlowError after LIMIT_S."""
    received = bytearray()
    with trio.fail_after(LIMIT_S):
        try:
            async for chunk in stream:
                received += chunk
        except trio.BrokenResourceError:
            pass
    return bytes(received)


async def read_until(stream: trio.SocketStream, mark: bytes) -> bytes:
    received = b""
    with trio.fail_after(LIMIT_S):
        while mark not in received:
            received += (chunk := bytes(await stream.receive_some()))
            assert chunk, received
    return received


async def exchange(served: Served, *parts: bytes) -> tuple[int, bytes, bytes]:
    """Send `parts`, read until the server closes, and return status, head and body."""
    async with connected(served) as stream:
        try:
            for part in parts:
                await stream.send_all(part)
        except trio.BrokenResourceError:
            pass  # it responded and closed before it read everything
        head, _blank, body = (await read_to_end(stream)).partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


def get(path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: localhost", *headers, "", ""]).encode()


def post(path: str, size: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()


@pytest.mark.parametrize("path", ["/hello", "/health", "/no-such-path", "/fail", "/quart-fails"])
@pytest.mark.parametrize(
    "request_of", [partial(get, version="1.0"), lambda path: get(path, "Connection: close")], ids=["1.0", "close"]
)
async def test_http_1_0_and_connection_close_close_after_answer(path: str, request_of: partial[bytes]) -> None:
    async with running() as served:
        status, head, body = await exchange(served, request_of(path))
        assert status in (200, 404, 500)
        assert f"content-length: {len(body)}".encode() in head.lower()


@pytest.mark.parametrize("path", ["/hello", "/health"])
async def test_connection_is_kept_alive_by_default(path: str) -> None:
    async with running() as served, connected(served) as stream:
        for _ in range(3):
            await stream.send_all(get(path))
            assert b" 200 " in await read_until(stream, b"hello" if path == "/hello" else b"}")


@pytest.mark.parametrize("path", ["/fail", "/quart-fails"])
async def test_handler_exception_has_common_error_shape(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running() as served:
        status, _head, body = await exchange(served, get(path, "X-Correlation-Id: mine", version="1.0"))
    error = json.loads(body)
    assert (status, error["code"], error["correlation_id"]) == (500, "INTERNAL", "mine")
    assert b"secret detail" not in body
    assert "secret detail" in caplog.text


@pytest.mark.parametrize("path", ["/length", "/hello", "/health"])
async def test_large_unread_body_does_not_hold_connection(path: str) -> None:
    """The unread body fills hypercorn's queue, so that its final event would wait for room in the queue."""
    async with running() as served:
        status, _head, _body = await exchange(served, post(path, LARGE), b"x" * LARGE)
        assert status == {"/length": 413, "/hello": 404, "/health": 405}[path]


async def test_large_body_with_wrong_token_gets_401() -> None:
    async with running(Access(Secret("0123456789abcdef"))) as served:
        status, _head, body = await exchange(served, post("/length", LARGE), b"x" * LARGE)
        assert (status, json.loads(body)["code"]) == (401, "MISSING_TOKEN")


@pytest.mark.parametrize(
    "malformed",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ],
    ids=["tls", "no host", "long", "websocket"],
)
async def test_malformed_request_is_refused_and_server_goes_on(malformed: bytes) -> None:
    async with running() as served:
        assert (await exchange(served, malformed))[0] in (400, 414, 431)
        assert (await exchange(served, get("/hello", version="1.0")))[0] == 200


async def test_http_2_is_declined_without_crash() -> None:
    """In hypercorn, a non-ASCII method in HTTP/2 without TLS raised an error that ended the daemon."""
    settings, headers = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", b"\x02\x03G\xffT\x86\x84\x41\x01h"
    frame = len(headers).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + headers
    async with running() as served:
        status, head, _body = await exchange(served, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + frame)
        assert (status in (400, 505), head[:8]) == (True, b"HTTP/1.1")
        upgrade = get("/hello", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Connection: close")
        assert (await exchange(served, upgrade))[0] == 200


async def test_failure_in_one_connection_affects_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as served, connected(served) as other:
        await other.send_all(get("/hello"))
        await read_until(other, b"hello")

        async def fail(*_: object) -> None:
            raise UnicodeDecodeError("ascii", b"\xff", 0, 1, "in a connection")

        with monkeypatch.context() as patch:
            patch.setattr(http1.Http1, "handle", fail)
            async with connected(served) as stream:
                await stream.send_all(get("/health"))
                assert await read_to_end(stream) == b""
        await other.send_all(get("/hello"))
        assert b"hello" in await read_until(other, b"hello")
    assert "in a connection" in caplog.text


async def test_leaked_cancellation_stays_in_its_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancellation leaked from hypercorn's task group and closed the listener without a message."""
    leaked: list[trio.Cancelled] = []
    with trio.CancelScope() as cancelled:
        cancelled.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            leaked.append(error)
            raise

    async def leak(*_: object) -> None:
        raise leaked[0]

    async with running() as served:
        with monkeypatch.context() as patch:
            patch.setattr(http1.BoundedServer, "run", leak)
            async with connected(served) as stream:
                await stream.send_all(get("/health"))
                assert await read_to_end(stream) == b""
        assert (await exchange(served, get("/hello", version="1.0")))[0] == 200
    assert "a connection was dropped" in caplog.text


async def test_failure_of_listener_ends_server() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app("test", list, CollectorRegistry())
    server = partial(serve, Gate(app, OPEN), [listener], shutdown=trio.Event(), drain_s=LIMIT_S)

    async def serve_until_it_fails() -> None:
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(server)
                listener.shutdown(socket.SHUT_RDWR)

    with pytest.raises(ExceptionGroup) as raised:
        await serve_until_it_fails()
    assert raised.group_contains(OSError)


async def test_idle_accept_loop_beats_and_retires_at_stop() -> None:
    listener, stop = socket.create_server(("127.0.0.1", 0)), trio.Event()
    port, pulses = str(listener.getsockname()[1]), list[Pulse]()

    def pulse(name: str) -> Pulse:
        pulses.append(Pulse(name, 0.01))
        return pulses[-1]

    app = create_app("test", list, CollectorRegistry())
    server = partial(serve, Gate(app, OPEN), [listener], shutdown=stop, drain_s=LIMIT_S, pulse=pulse)
    async with trio.open_nursery() as nursery:
        await nursery.start(server)
        with trio.fail_after(LIMIT_S):
            while pulses[0].count < 5:  # noqa: ASYNC110 -- a pulse has no event
                await trio.sleep(0.01)
        assert not pulses[0].retired
        stop.set()
    assert [(port in pulse.name, pulse.retired) for pulse in pulses] == [(True, True)]


async def test_client_disconnect_is_noticed() -> None:
    async with running() as served:
        async with connected(served) as stream:
            await stream.send_all(get("/stream"))
            await read_until(stream, b"begun")
        with trio.fail_after(LIMIT_S):
            await served.disconnected.wait()


async def test_graceful_stop_finishes_stream_and_refuses_new_clients() -> None:
    async with running() as served, connected(served) as stream, connected(served) as idle:
        await stream.send_all(get("/stream"))
        await read_until(stream, b"begun")
        served.stop.set()
        assert await read_to_end(idle) == b"", "an idle connection is closed"
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", served.port)
        assert not served.ended.is_set()
        served.finish.set()
        assert b"ended" in await read_to_end(stream)


async def test_endless_stream_is_cut_at_drain_limit() -> None:
    async with running(drain_s=0.05) as served, connected(served) as stream:
        await stream.send_all(get("/stream"))
        await read_until(stream, b"begun")
        served.stop.set()
        assert b"ended" not in await read_to_end(stream)


@pytest.mark.parametrize("path", ["/flood", "/hello"])
async def test_stalled_reader_does_not_delay_stop(path: str) -> None:
    """Neither in the middle of an answer nor with unread answers."""
    async with running(drain_s=0.05) as served, connected(served) as stream:
        await stream.send_all(get(path))
        if path == "/flood":
            with trio.fail_after(LIMIT_S):
                await served.streaming.wait()
        served.stop.set()
        with trio.fail_after(LIMIT_S):
            await served.ended.wait()


async def test_stalled_reader_does_not_delay_cancellation() -> None:
    """A second signal cancels `serve`. The shielded send to a stalled reader must end, too."""
    listener = socket.create_server(("127.0.0.1", 0))
    served = Served(listener.getsockname()[1])
    gate = Gate(create_app("test", list, CollectorRegistry()), Access(), routes(served))
    async with connected(served) as stream:
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(serve, gate, [listener], shutdown=trio.Event(), drain_s=LIMIT_S))
                await stream.send_all(get("/flood"))
                await served.streaming.wait()
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()


async def test_stalled_reader_is_dropped_after_send_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (http1, hot_exchange):
        monkeypatch.setattr(module, "SEND_LIMIT_S", 0.05)
    async with running(drain_s=0.05) as served, connected(served) as stream:
        await stream.send_all(get("/flood"))
        with trio.fail_after(LIMIT_S):
            await served.streaming.wait()
        await trio.sleep(0.2)  # the client must be idle for longer than the limit
        await read_to_end(stream)


@pytest.mark.parametrize("before", [b"", get("/health")], ids=["hot", "behind another request"])
async def test_handler_can_abort_stalled_reader(before: bytes) -> None:
    """Immediately: the kernel discards its send buffer, and the client gets a reset."""
    async with running() as served, connected(served) as stream:
        await stream.send_all(before)
        if before:
            await read_until(stream, b"}")
        await stream.send_all(get("/cut"))
        with trio.fail_after(LIMIT_S):
            await served.streaming.wait()
            await trio.testing.wait_all_tasks_blocked(0.05)
            served.finish.set()
            await served.disconnected.wait()
            with pytest.raises(trio.BrokenResourceError):
                _ = [data async for data in stream]


async def test_abort_of_closed_connection_does_nothing() -> None:
    async with running() as served, connected(served) as stream:
        abort(stream)
        abort(stream)


async def test_unix_socket_requests_have_no_peer_address(tmp_path: object) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/local.sock")
    listener.listen()
    stop = trio.Event()
    gate = Gate(create_app("test", list, CollectorRegistry()), Access(), routes(Served(0)))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, gate, [listener], shutdown=stop, drain_s=LIMIT_S))
        stream = await trio.open_unix_socket(f"{tmp_path}/local.sock")
        async with stream:
            await stream.send_all(get("/hello", version="1.0"))
            assert b" 200 " in await read_to_end(stream)
        stop.set()
