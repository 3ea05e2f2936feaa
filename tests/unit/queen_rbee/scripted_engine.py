"""A stand-in engine that answers POST /completion as llama-server does, and fails as engines fail, on demand.

It is told by the prompt what to do; the formats are those measured with a real llama-server.
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
AWAY = {
    "vanish": b"",
    "loading": b"HTTP/1.1 503 Loading\r\nContent-Length: %d\r\n\r\n%s" % (len(LOADING), LOADING),
    "bad gateway": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
}
"""What an engine that restarts answers, whoever asks; the last is a proxy in front of it."""
BAD_REQUEST = b'{"error":{"code":400,"message":"the request exceeds the context","type":"exceed_context_size_error"}}'


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass
class ScriptedEngine:
    """Counts who is connected; `left` is set whenever a client's connection has closed."""

    url: str = ""
    connected: int = 0
    most: int = 0
    served: int = 0
    asked: bytes = b""
    health: bytes = b"200"
    mood: str = ""
    checks: int = 0
    left: trio.Event = field(default_factory=trio.Event)

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
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
            self.asked = request
            if self.mood:
                await stream.send_all(AWAY[self.mood])
                return
            await self.act(stream, request)
        except trio.BrokenResourceError:
            pass
        finally:
            self.connected -= 1
            self.served += not request.startswith(b"GET ")
            self.left.set()
            self.left = trio.Event()

    async def act(self, stream: trio.SocketStream, request: bytes) -> None:
        """Do what the prompt says; without a word of it, answer with two tokens."""
        if b"refuse" in request:
            await stream.send_all(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%s" % (len(BAD_REQUEST), BAD_REQUEST))
        elif b"break" in request:
            await stream.send_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")
        elif b"vanish" in request:
            return
        elif b"silence" in request:
            await self.until_left(stream)
        elif b"garbage" in request:
            await stream.send_all(HEAD + chunk(b"data: <html>\n\n"))
        elif b"hang up" in request:
            await stream.send_all(HEAD + chunk(TOKEN))
        elif b"stall" in request:
            await stream.send_all(HEAD + chunk(TOKEN))
            await self.until_left(stream)
        elif b"midway" in request:
            await stream.send_all(HEAD + chunk(TOKEN) + chunk(FAILED))
        else:
            await stream.send_all(HEAD + chunk(TOKEN) + chunk(TOKEN) + chunk(LAST) + b"0\r\n\r\n")

    async def until_left(self, stream: trio.SocketStream) -> None:
        """Say nothing until the client goes."""
        while await stream.receive_some(1):
            pass


@asynccontextmanager
async def scripted_engine() -> AsyncIterator[ScriptedEngine]:
    """A running stand-in on a free port of the loopback."""
    engine = ScriptedEngine()
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, engine.handle, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        engine.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield engine
        nursery.cancel_scope.cancel()
