"""A small HTTP/1.1 server on trio: keep-alive, ranges of files, and a record of all requests."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import trio

BLOCK = 256 << 10


@dataclass(frozen=True)
class Request:
    """A request without body. Names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """An answer. A `body` that is a path is a file, sent as a range if that is asked for and `ranges` is set."""

    status: int = 200
    body: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    ranges: bool = True


Answer = Callable[[Request], Awaitable[Reply]]


class WebServer:
    """Serves what `answer` returns. `requests` has all requests; `sent` counts the bytes of all bodies.

    `rate` limits each file that is sent, in bytes/s; 0 is no limit.
    """

    def __init__(self, answer: Answer, rate: int = 0) -> None:
        self._answer = answer
        self._rate = rate
        self.requests: list[Request] = []
        self.sent = 0
        self.port = 0

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["WebServer"]:
        """Serve on `port`, or on a free one, for the duration of the block."""
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, self._handle, port, host="127.0.0.1")
            listeners: list[trio.SocketListener] = await nursery.start(serve)
            self.port = listeners[0].socket.getsockname()[1]
            yield self
            nursery.cancel_scope.cancel()

    async def _handle(self, stream: trio.SocketStream) -> None:
        buffered = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffered:
                    if not (data := await stream.receive_some(65536)):
                        return
                    buffered += data
                head, _, buffered = buffered.partition(b"\r\n\r\n")
                request = parse(head)
                self.requests.append(request)
                await self._send(stream, request, await self._answer(request))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _send(self, stream: trio.SocketStream, request: Request, reply: Reply) -> None:
        size = reply.body.stat().st_size if isinstance(reply.body, Path) else len(reply.body)
        status, start, end = reply.status, 0, size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        etag = reply.headers.get("etag")
        fresh = request.headers.get("if-range", etag) == etag
        fields = dict(reply.headers)
        if wanted and fresh and reply.ranges and status == 200 and isinstance(reply.body, Path):
            start, end = int(wanted[1]), min(size, int(wanted[2] or size - 1) + 1)
            status = 206 if start < size else 416
            fields["content-range"] = f"bytes {start}-{end - 1}/{size}" if status == 206 else f"bytes */{size}"
        start = end if status == 416 else start
        fields["content-length"] = str(end - start)
        lines = [f"HTTP/1.1 {status} x", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        await stream.send_all("\r\n".join(lines).encode())
        if request.method == "HEAD":
            return
        if isinstance(reply.body, bytes):
            await self._send_block(stream, reply.body[start:end])
            return
        with reply.body.open("rb") as file:
            file.seek(start)
            block_size = min(BLOCK, self._rate // 10 or BLOCK)
            while start < end and (block := file.read(min(block_size, end - start))):
                await self._send_block(stream, block)
                if self._rate:
                    await trio.sleep(len(block) / self._rate)
                start += len(block)

    async def _send_block(self, stream: trio.SocketStream, block: bytes) -> None:
        await stream.send_all(block)
        self.sent += len(block)


def parse(head: bytes) -> Request:
    """Parse the head of a request."""
    line, *fields = head.decode("latin-1").split("\r\n")
    method, target, _version = line.split(" ")
    parts = urlsplit(target)
    pairs = (name_value.partition(":") for name_value in fields)
    headers = {name.strip().lower(): value.strip() for name, _colon, value in pairs}
    return Request(method, unquote(parts.path), parts.query, headers)
