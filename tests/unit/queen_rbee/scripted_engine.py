"""A fake engine that answers POST /completion as llama-server does, and fails in the ways that engines fail.

The prompt selects the behaviour. Formats are those observed with a real llama-server.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from tests.connections import receive_some

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'data: {"content":"word ","stop":false}\n\n'
LAST = b'data: {"content":"","stop":true,"tokens_evaluated":3,"tokens_predicted":2}\n\n'
FAILED = b'data: {"error":{"code":500,"message":"out of memory"}}\n\n'
LOADING = b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'
OUTAGE_RESPONSES = {
    "vanish": b"",
    "loading": b"HTTP/1.1 503 Loading\r\nContent-Length: %d\r\n\r\n%s" % (len(LOADING), LOADING),
    "bad gateway": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
}
"""What a restarting engine answers to every request; the last is by a proxy in front of it."""
BAD_REQUEST = b'{"error":{"code":400,"message":"the request exceeds the context","type":"exceed_context_size_error"}}'


def chunk(data: bytes) -> bytes:
    """Frame `data` as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass
class ScriptedEngine:
    """`connected` counts open connections, `most` their maximum, `served` the requests that ended.

    `disconnected` is set, and replaced, whenever a connection has closed. `outage` selects one of OUTAGE_RESPONSES.
    """

    url: str = ""
    connected: int = 0
    most: int = 0
    served: int = 0
    last_request: bytes = b""
    health: bytes = b"200"
    outage: str = ""
    checks: int = 0
    disconnected: trio.Event = field(default_factory=trio.Event)

    async def handle(self, stream: trio.SocketStream) -> None:
        self.connected += 1
        self.most = max(self.most, self.connected)
        request = b""
        try:
            while b"\r\n\r\n" not in request or not (b"}" in request or request.startswith(b"GET ")):
                request += await receive_some(stream)
            if request.startswith(b"GET /health "):
                self.checks += 1
                await stream.send_all(b"HTTP/1.1 %s X\r\nContent-Length: 0\r\n\r\n" % self.health)
                return
            self.last_request = request
            if self.outage:
                await stream.send_all(OUTAGE_RESPONSES[self.outage])
                return
            await self.respond(stream, request)
        except trio.BrokenResourceError:
            pass
        finally:
            self.connected -= 1
            self.served += not request.startswith(b"GET ")
            self.disconnected.set()
            self.disconnected = trio.Event()

    async def respond(self, stream: trio.SocketStream, request: bytes) -> None:
        """Behave as the prompt says; by default, answer with two tokens."""
        if b"refuse" in request:
            await stream.send_all(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%s" % (len(BAD_REQUEST), BAD_REQUEST))
        elif b"break" in request:
            await stream.send_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")
        elif b"vanish" in request:
            return
        elif b"silence" in request:
            await self.wait_for_disconnect(stream)
        elif b"garbage" in request:
            await stream.send_all(HEAD + chunk(b"data: <html>\n\n"))
        elif b"hang up" in request:
            await stream.send_all(HEAD + chunk(TOKEN))
        elif b"stall" in request:
            await stream.send_all(HEAD + chunk(TOKEN))
            await self.wait_for_disconnect(stream)
        elif b"midway" in request:
            await stream.send_all(HEAD + chunk(TOKEN) + chunk(FAILED))
        else:
            await stream.send_all(HEAD + chunk(TOKEN) + chunk(TOKEN) + chunk(LAST) + b"0\r\n\r\n")

    async def wait_for_disconnect(self, stream: trio.SocketStream) -> None:
        while await stream.receive_some(1):
            pass


@asynccontextmanager
async def scripted_engine() -> AsyncIterator[ScriptedEngine]:
    """Run a fake engine on a free loopback port."""
    engine = ScriptedEngine()
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, engine.handle, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        engine.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield engine
        nursery.cancel_scope.cancel()
