"""An HTTP/1.1 client for load generators: requests are encoded in advance, responses are scanned rather than parsed.

A request costs about 0.1 ms of the generator's CPU, so that the benchmark measures queen-rbee and not its client.
"""

import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import trio

HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length: "
CHUNKED = b"\r\ntransfer-encoding: chunked"
CHUNK = 65536
FRAME = re.compile(rb"id: (\d+)\nevent: (\w+)\ndata: (.*)")


class Broken(Exception):
    """The peer closed the connection or sent invalid HTTP."""


@dataclass(frozen=True)
class Answer:
    """A response. `head` is in lower case."""

    status: int
    head: bytes
    body: bytes = b""

    def field(self, name: bytes) -> bytes | None:
        """Return the value of a header. `name` is in lower case."""
        _, found, rest = self.head.partition(b"\r\n" + name + b": ")
        return rest.partition(b"\r\n")[0] if found else None


def encoded(method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes:
    """Encode a request."""
    data = b"" if body is None else json.dumps(body).encode()
    fields = {"Host": "localhost", "Content-Type": "application/json", **(headers or {}), "Content-Length": len(data)}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a task. `data` is JSON."""

    number: int
    name: bytes
    data: bytes


class Wire:
    """A persistent connection. It is closed at the end of its `with` block."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        self._seen = b""
        self.bytes_per_second = 0
        """Read rate; 0 is unlimited."""

    @classmethod
    async def open(cls, port: int, *, receive_buffer: int | None = None) -> "Wire":
        """Connect to `port` on loopback. `receive_buffer` is the size of the kernel's buffer in bytes."""
        sock = trio.socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await sock.connect(("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    async def ask(self, request: bytes) -> Answer:
        """Send `request` and return the response, which must have a Content-Length or no body. Raises Broken."""
        answer = await self.begin(request)
        length = int(answer.field(b"content-length") or 0)
        while len(self._seen) < length:
            await self._more()
        body, self._seen = self._seen[:length], self._seen[length:]
        return Answer(answer.status, answer.head, body)

    async def begin(self, request: bytes) -> Answer:
        """Send `request` and return the head of the response. The caller reads the body. Raises Broken."""
        await self.send(request)
        while HEAD_END not in self._seen:
            await self._more()
        head, _, self._seen = self._seen.partition(HEAD_END)
        return Answer(int(head[9:12]), head.lower() + b"\r\n")

    async def send(self, data: bytes) -> None:
        while data:
            data = data[await self._socket.send(data) :]

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield a chunked body as it arrives. Raises Broken."""
        chunks = ChunkDecoder()
        while True:
            data, self._seen = chunks.feed(self._seen), b""
            if data:
                yield data
            if chunks.ended:
                self._seen = chunks.rest
                return
            await self._more()

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the server-sent events of a chunked body as they arrive, without comments. Raises Broken."""
        rest = b""
        async for piece in self.pieces():
            *frames, rest = (rest + piece).split(b"\n\n")
            for frame in frames:
                if not frame.startswith(b":"):
                    yield frame

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events of a task as they arrive. Raises Broken."""
        async for frame in self.frames():
            yield event_of(frame)

    async def _more(self) -> None:
        try:
            data = await self._socket.recv(self.bytes_per_second or CHUNK)
        except OSError as error:
            raise Broken(str(error)) from error
        if not data:
            raise Broken("the peer closed the connection")
        self._seen += data
        if self.bytes_per_second:
            await trio.sleep(len(data) / self.bytes_per_second)


def event_of(frame: bytes) -> Event:
    """Parse an event of a task. Raises Broken."""
    if not (found := FRAME.fullmatch(frame)):
        raise Broken(f"invalid event: {frame!r}")
    return Event(int(found[1]), found[2], found[3])


class ChunkDecoder:
    """Decoder of the chunked transfer coding."""

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the contents of the chunks that `data` completes."""
        self.rest += data
        found = []
        while not self.ended and (chunk := self._next()) is not None:
            found.append(chunk)
        return b"".join(found)

    def _next(self) -> bytes | None:
        size, mark, behind = self.rest.partition(b"\r\n")
        if not mark:
            return None
        length = int(size, 16)
        if len(behind) < length + 2:
            return None
        self.ended = length == 0
        self.rest = behind[length + 2 :]
        return behind[:length]
