"""A listener with as many open connections as it may have."""

import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from llama_orch.http.server import overload
from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.overload import REFUSALS_AT_ONCE, connection_limit
from llama_orch.http.server.serving import serve
from llama_orch.http.tls.current import NO_TLS, CurrentTls
from tests.certificates import create_ca

LIMIT_S = 20.0
REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
ALLOWED = 3


@asynccontextmanager
async def serving(tls: CurrentTls = NO_TLS) -> AsyncIterator[tuple[str, int]]:
    """Serve /health on at most ALLOWED connections; yield the address."""
    stop, gate = trio.Event(), Gate(create_app("test", list, CollectorRegistry()), Access())
    with socket.create_server(("127.0.0.1", 0)) as listener, trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[None]) -> None:
                sockets = [listener.dup()]
                await serve(
                    gate, sockets, shutdown=stop, drain_s=LIMIT_S, tls=tls, limit=ALLOWED, task_status=task_status
                )

            await nursery.start(run)
            yield listener.getsockname()
            stop.set()


async def answer(stream: trio.abc.HalfCloseableStream | trio.SSLStream[trio.SocketStream], *, send: bool) -> bytes:
    """Return the first answer on `stream`; with `send` that to a request, which the refusal does not wait for."""
    if send:
        await stream.send_all(REQUEST)
    received = b""
    while b"}" not in received:
        chunk = await stream.receive_some()
        assert chunk, received
        received += chunk
    return received


async def test_clients_above_limit_get_503_until_one_leaves() -> None:
    async with serving() as address, AsyncExitStack() as stack:
        held = [await stack.enter_async_context(await trio.open_tcp_stream(*address)) for _each in range(ALLOWED)]
        for stream in held:
            assert (await answer(stream, send=True)).startswith(b"HTTP/1.1 200")
        async with await trio.open_tcp_stream(*address) as further:
            refused = await answer(further, send=False)
            assert await further.receive_some() == b""
        head, _end, body = refused.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert {b"retry-after: 1", b"connection: close"} <= set(head.split(b"\r\n"))
        error = json.loads(body)
        assert (error["code"], error["retriable"], error["retry_after_ms"]) == ("ADMISSION_REJECT", True, 1000)
        assert (await answer(held[0], send=True)).startswith(b"HTTP/1.1 200"), "open connections go on"
        await held[0].aclose()
        while True:
            async with await trio.open_tcp_stream(*address) as next_one:
                if (await answer(next_one, send=True)).startswith(b"HTTP/1.1 200"):
                    break


async def test_refusal_reaches_a_client_that_sends_a_body() -> None:
    """A reset of the connection would discard it."""
    async with serving() as address, AsyncExitStack() as stack:
        for _each in range(ALLOWED):
            await stack.enter_async_context(await trio.open_tcp_stream(*address))
        async with await trio.open_tcp_stream(*address) as further:
            await further.send_all(b"POST /v2/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000)
            assert (await answer(further, send=False)).startswith(b"HTTP/1.1 503 ")


async def test_refusal_is_sent_over_tls(tmp_path: Path) -> None:
    files = create_ca(tmp_path, "ca").issue("daemon")
    trusting = ssl.create_default_context(cafile=files.ca)
    async with serving(CurrentTls(replace(files, ca=None))) as address, AsyncExitStack() as stack:
        for _each in range(ALLOWED):
            await stack.enter_async_context(await trio.open_tcp_stream(*address))
        further = await trio.open_ssl_over_tcp_stream(*address, ssl_context=trusting, https_compatible=True)
        async with further:
            assert (await answer(further, send=False)).startswith(b"HTTP/1.1 503 ")


async def test_refusals_are_bounded_and_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "REFUSAL_LIMIT_S", LIMIT_S)
    async with serving() as address, AsyncExitStack() as stack:
        streams = []
        for _each in range(ALLOWED + REFUSALS_AT_ONCE + 1):
            streams.append(await stack.enter_async_context(await trio.open_tcp_stream(*address)))
        with pytest.raises((AssertionError, trio.BrokenResourceError)):
            await answer(streams[-1], send=False)
        for stream in streams:
            await stream.aclose()
    messages = [record.getMessage() for record in caplog.records if "further clients get 503" in record.getMessage()]
    assert len(messages) == 1
    assert f"has {ALLOWED} open connections" in messages[0]


@pytest.mark.parametrize(("descriptors", "limit"), [(65536, 16320), (1024, 192), (64, 16)])
def test_limit_is_a_share_of_the_descriptors(descriptors: int, limit: int) -> None:
    assert connection_limit(descriptors) == limit
