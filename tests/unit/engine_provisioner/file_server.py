"""A file server on loopback with typical faults: broken connections, silence, changed files, no ranges."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from tests.connections import receive_some


@dataclass
class FileServer:
    """Serves `content` at any path; `sent` counts the bytes of all bodies.

    It breaks each connection after `cut_after` bytes of a body, `cuts` times (None: always), or stops sending after
    `silent_after` bytes. `ranges`: whether it answers ranges with 206. It answers once with `refuse_once`.
    """

    content: bytes
    etag: str | None = '"v1"'
    status: int | None = None
    location: str | None = None
    ranges: bool = True
    content_length: bool = True
    cut_after: int | None = None
    cuts: int | None = 1
    silent_after: int | None = None
    silences: int | None = None
    refuse_once: int | None = None
    extra: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    open_now: int = 0
    most_at_once: int = 0
    url: str = ""

    async def handle(self, stream: trio.SocketStream) -> None:
        """Answer one request and close."""
        head = b""
        self.open_now += 1
        self.most_at_once = max(self.most_at_once, self.open_now)
        try:
            while b"\r\n\r\n" not in head:
                head += await receive_some(stream)
            request = head.decode("latin-1")
            self.requests.append(request)
            await self._answer(stream, request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open_now -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.SocketStream, request: str) -> None:
        size = len(self.content)
        match = re.search(r"\r\nrange: bytes=(\d+)-(\d*)", request, re.IGNORECASE)
        condition = re.search(r"\r\nif-range: (.*?)\r\n", request, re.IGNORECASE)
        partial_answer = match is not None and self.ranges and (condition is None or condition[1] == self.etag)
        start, end = (int(match[1]), int(match[2] or size - 1) + 1) if match and partial_answer else (0, size)
        end = min(end, size)
        status = self.status or (206 if partial_answer else 200)
        if partial_answer and start >= size:
            status, start, end = 416, 0, 0
        if self.refuse_once:
            status, self.refuse_once = self.refuse_once, None
        body = self.content[start:end]
        fields = [f"HTTP/1.1 {status} x", "connection: close", *(f"{k}: {v}" for k, v in self.extra.items())]
        fields += [f"content-length: {len(body)}"] if self.content_length else []
        fields += [f"etag: {self.etag}"] if self.etag else []
        fields += [f"location: {self.location}"] if self.location else []
        fields += [f"content-range: bytes {start}-{end - 1}/{size}"] if status == 206 else []
        await stream.send_all("\r\n".join([*fields, "", ""]).encode())
        await self._send(stream, body)

    async def _send(self, stream: trio.SocketStream, body: bytes) -> None:
        if self.silent_after is not None and self.silences != 0:
            self.silences = None if self.silences is None else self.silences - 1
            await self._count(stream, body[: self.silent_after])
            await trio.sleep_forever()
        elif self.cut_after is not None and self.cuts != 0 and len(body) > self.cut_after:
            self.cuts = None if self.cuts is None else self.cuts - 1
            await self._count(stream, body[: self.cut_after])
        else:
            await self._count(stream, body)

    async def _count(self, stream: trio.SocketStream, body: bytes) -> None:
        for start in range(0, len(body), 65536):
            block = body[start : start + 65536]
            await stream.send_all(block)
            self.sent += len(block)


@asynccontextmanager
async def serving(server: FileServer) -> AsyncIterator[FileServer]:
    """Serve on a free port for the duration of the block."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, server.handle, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/models/model.gguf"
        yield server
        nursery.cancel_scope.cancel()
