"""HTTP/1.1 as a load generator speaks it: requests encoded beforehand, answers scanned and not parsed.

What is measured must be the queen and not her client: a request costs about 0.1 ms of the generator's CPU.
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
    """The other side ended the connection, or said what is no HTTP."""


@dataclass(frozen=True)
class Answer:
    """`head` is in lower case."""

    status: int
    head: bytes
    body: bytes = b""

    def field(self, name: bytes) -> bytes | None:
        """A header; `name` in lower case."""
        _, found, rest = self.head.partition(b"\r\n" + name + b": ")
        return rest.partition(b"\r\n")[0] if found else None


def encoded(method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes:
    """A request as it goes over the wire."""
    data = b"" if body is None else json.dumps(body).encode()
    fields = {"Host": "localhost", "Content-Type": "application/json", **(headers or {}), "Content-Length": len(data)}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a task's stream; `data` is JSON."""

    number: int
    name: bytes
    data: bytes


class Wire:
    """One connection, kept alive; closed when the block is left."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        self._seen = b""
        self.slowly = 0
        """How many bytes a second are read; 0: as they come."""

    @classmethod
    async def open(cls, port: int, *, receive_buffer: int | None = None) -> "Wire":
        """Connected to `port` on loopback; `receive_buffer` bounds, in bytes, what the kernel takes in unread."""
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
        """The answer to `request`, which has a Content-Length or no body. Raises Broken."""
        answer = await self.begin(request)
        length = int(answer.field(b"content-length") or 0)
        while len(self._seen) < length:
            await self._more()
        body, self._seen = self._seen[:length], self._seen[length:]
        return Answer(answer.status, answer.head, body)

    async def begin(self, request: bytes) -> Answer:
        """The head of the answer to `request`; its body is still to be read. Raises Broken."""
        await self.send(request)
        while HEAD_END not in self._seen:
            await self._more()
        head, _, self._seen = self._seen.partition(HEAD_END)
        return Answer(int(head[9:12]), head.lower() + b"\r\n")

    async def send(self, data: bytes) -> None:
        """All of `data`."""
        while data:
            data = data[await self._socket.send(data) :]

    async def pieces(self) -> AsyncIterator[bytes]:
        """A chunked body as it comes, to its end. Raises Broken."""
        chunks = Chunks()
        while True:
            data, self._seen = chunks.feed(self._seen), b""
            if data:
                yield data
            if chunks.ended:
                self._seen = chunks.rest
                return
            await self._more()

    async def frames(self) -> AsyncIterator[bytes]:
        """The server-sent events of a chunked body as they come, to its end; comments are left out. Raises Broken."""
        rest = b""
        async for piece in self.pieces():
            *frames, rest = (rest + piece).split(b"\n\n")
            for frame in frames:
                if not frame.startswith(b":"):
                    yield frame

    async def events(self) -> AsyncIterator[Event]:
        """The events of a task's stream as they come, to its end. Raises Broken."""
        async for frame in self.frames():
            yield event_of(frame)

    async def _more(self) -> None:
        try:
            data = await self._socket.recv(self.slowly or CHUNK)
        except OSError as error:
            raise Broken(str(error)) from error
        if not data:
            raise Broken("the connection ended")
        self._seen += data
        if self.slowly:
            await trio.sleep(len(data) / self.slowly)


def event_of(frame: bytes) -> Event:
    """An event of a task's stream. Raises Broken."""
    if not (found := FRAME.fullmatch(frame)):
        raise Broken(f"no event: {frame!r}")
    return Event(int(found[1]), found[2], found[3])


class Chunks:
    """Takes the chunked coding off a body, in whatever grain it comes."""

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """What `data` completes."""
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
