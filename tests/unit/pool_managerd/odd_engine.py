"""A fake engine on loopback that fails in the way that the last path segment names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = (
    b"HTTP/1.1 418 Teapot\r\nContent-Type: text/plain\r\nX-Compute: 7\r\nServer: odd\r\nContent-Length: 5\r\n\r\nhello"
)

ANSWERS = {
    "cut": STREAM + b"9\r\ndata: 1\n\n\r\nff\r\nhalf",
    "short": WHOLE[:-2],
    "hangup": b"",
    "nonsense": b"SSH-2.0-odd\r\n\r\n",
    "empty": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "old": b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
}


def chunk(data: bytes) -> bytes:
    """Encode one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass
class OddEngine:
    """`asked` has each request as it came, `open` how many connections there are now,
    `flooded` how many bytes it got rid of on the path /flood; `left` is set anew whenever a
    client goes. Data put into `say` is sent on the path /scripted; b"" ends it."""

    port: int = 0
    asked: list[bytes] = field(default_factory=list)
    open: int = 0
    flooded: int = 0
    left: trio.Event = field(default_factory=trio.Event)
    arrived: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.say, self._heard = trio.open_memory_channel[bytes](100)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        self.open += 1
        try:
            async with stream:
                if not (request := await whole_request(stream)):
                    return
                self.asked.append(request)
                self.arrived.set()
                await self.act(stream, request.split(b" ")[1].decode().partition("?")[0].rpartition("/")[2])
        except trio.BrokenResourceError:
            pass
        finally:
            self.open -= 1
            self.left.set()
            self.left = trio.Event()

    async def act(self, stream: trio.SocketStream, how: str) -> None:
        """Answer in the way that the path names."""
        if how in ("silence", "stall"):
            await stream.send_all(STREAM + chunk(b"data: 1\n\n") if how == "stall" else b"")
            await until_left(stream)
        elif how == "flood":
            await stream.send_all(STREAM)
            while True:
                await stream.send_all(chunk(bytes(65536)))
                self.flooded += 65536
        elif how == "scripted":
            await stream.send_all(STREAM)
            while data := await self._heard.receive():
                await stream.send_all(chunk(data))
            await stream.send_all(b"0\r\n\r\n")
        else:
            await stream.send_all(ANSWERS.get(how, WHOLE))


async def whole_request(stream: trio.SocketStream) -> bytes:
    """Read head and body of a request."""
    request = b""
    while b"\r\n\r\n" not in request or len(request.partition(b"\r\n\r\n")[2]) < length(request):
        if not (data := await stream.receive_some(65536)):
            return request
        request += data
    return request


def length(request: bytes) -> int:
    """Return Content-Length."""
    for line in request.partition(b"\r\n\r\n")[0].lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def until_left(stream: trio.SocketStream) -> None:
    """Send nothing until the client disconnects."""
    while await stream.receive_some(1024):
        pass


@asynccontextmanager
async def odd_engine() -> AsyncIterator[OddEngine]:
    """Run a fake engine until the block is left."""
    engine = OddEngine()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, engine.handle, 0, host="127.0.0.1"))
        engine.port = listeners[0].socket.getsockname()[1]
        yield engine
        nursery.cancel_scope.cancel()
