"""A file server on loopback with typical faults: broken connections, silence, changed files."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from tests.connections import receive_some


@dataclass
class FileServer:
    """Serves `content` at any path.

    It closes the connection once after `cut_after` bytes, or stops sending after `silent_after` bytes.
    """

    content: bytes
    etag: str | None = '"v1"'
    status: int | None = None
    location: str | None = None
    ranges: bool = True
    cut_after: int | None = None
    silent_after: int | None = None
    requests: list[str] = field(default_factory=list)
    url: str = ""

    async def handle(self, stream: trio.SocketStream) -> None:
        """Answer one request and close."""
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                head += await receive_some(stream)
            request = head.decode("latin-1")
            self.requests.append(request)
            await self._answer(stream, request)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.SocketStream, request: str) -> None:
        match = re.search(r"\r\nrange: bytes=(\d+)-", request, re.IGNORECASE)
        same = self.etag is not None and f"if-range: {self.etag}" in request
        start = int(match[1]) if match and same and self.ranges else 0
        status = self.status or (206 if start else 200)
        body = self.content[start:]
        fields = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", "connection: close"]
        fields += [f"etag: {self.etag}"] if self.etag else []
        fields += [f"location: {self.location}"] if self.location else []
        fields += [f"content-range: bytes {start}-{len(self.content) - 1}/{len(self.content)}"] if start else []
        await stream.send_all("\r\n".join([*fields, "", ""]).encode())
        await self._send(stream, body)

    async def _send(self, stream: trio.SocketStream, body: bytes) -> None:
        if self.silent_after is not None:
            await stream.send_all(body[: self.silent_after])
            await trio.sleep_forever()
        elif self.cut_after is not None:
            cut, self.cut_after = self.cut_after, None
            await stream.send_all(body[:cut])
        else:
            await stream.send_all(body)


@asynccontextmanager
async def serving(server: FileServer) -> AsyncIterator[FileServer]:
    """Serve on a free port for the duration of the block."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, server.handle, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/models/model.gguf"
        yield server
        nursery.cancel_scope.cancel()
