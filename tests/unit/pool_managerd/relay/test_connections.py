"""The relay's connections to engines: reused for the next request, and not once anything went wrong."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from tests.unit.pool_managerd.odd_engine import whole_request
from tests.unit.pool_managerd.relay_site import RelaySite, relay_site
from tests.unit.pool_managerd.values import READY, found

ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
STALLING = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"


class KeptEngine:
    """An engine that keeps its connections. Sends `answer` to each request; counts connections and notes requests."""

    def __init__(self) -> None:
        self.answer = ANSWER
        self.connections = 0
        self.asked: list[bytes] = []
        self.left = trio.Event()

    async def handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        try:
            while request := await whole_request(stream):
                self.asked.append(request)
                await stream.send_all(self.answer)
        finally:
            self.left.set()


@asynccontextmanager
async def site_with(engine: KeptEngine) -> AsyncIterator[RelaySite]:
    """Run a relay to `engine`."""
    async with relay_site() as site, trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, engine.handle, 0, host="127.0.0.1"))
        site.registry.take(found(replica_id="r0", port=listeners[0].socket.getsockname()[1]), READY)
        yield site
        nursery.cancel_scope.cancel()


async def ask(site: RelaySite, body: bytes = b"{}") -> bytes:
    async with site.ask("completion", body=body) as answer:
        return await answer.read()


async def test_connection_to_engine_is_reused() -> None:
    engine = KeptEngine()
    async with site_with(engine) as site:
        assert [await ask(site) for _turn in range(3)] == [b"hi"] * 3
    assert (engine.connections, len(engine.asked)) == (1, 3)


async def test_connection_is_closed_when_client_leaves() -> None:
    engine = KeptEngine()
    async with site_with(engine) as site:
        engine.answer = STALLING
        async with site.ask("completion") as answer:
            assert await anext(answer.chunks()) == b"hi"
        await engine.left.wait()
        assert site.connections.idle == 0
        engine.answer = ANSWER
        assert await ask(site) == b"hi"
    assert engine.connections == 2


async def test_engine_gets_the_bytes_of_a_long_prompt() -> None:
    engine, body = KeptEngine(), b'{"prompt": "' + b"The river  flows. \\u00e9" * 350_000 + b'", "seed" : 1e0 }'
    async with site_with(engine) as site:
        assert await ask(site, body) == b"hi"
    assert engine.asked[0].partition(b"\r\n\r\n")[2] == body
