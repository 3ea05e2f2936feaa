"""An answer: its head, and its body as a stream of chunks in any framing."""

import math
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import trio

from llama_orch.http.client.chunked import ChunkedBody
from llama_orch.http.client.head import AnswerHead, answer_head, split_head
from llama_orch.http.client.upstream import UpstreamError, UpstreamTimeout
from llama_orch.http.tls.secured import reason

CHUNK = 65536
BROKE_OFF = "the connection closed before the answer was complete"


@dataclass
class Response:
    """The head of an answer, and its body while it arrives."""

    head: AnswerHead
    _received: bytes
    """The bytes that came with the head."""
    _stream: trio.abc.Stream
    _body: "_Body | None" = field(default=None, init=False)

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by their names in lower case."""
        return self.head.headers

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body's chunks as they arrive. The iterator raises UpstreamError. Call it only once."""
        if self.head.chunked:
            self._body = _ChunkedBytes(self._received, self._stream)
        elif self.head.length is not None:
            self._body = _CountedBytes(self._received, self._stream, self.head.length)
        else:
            self._body = _AllBytes(self._received, self._stream)
        return self._body

    @property
    def arrived(self) -> bool:
        """Whether bytes of the body came with the head."""
        return bool(self._received)

    @property
    def complete(self) -> bool:
        """Whether the last chunk has been returned. False at the end of a body that only the connection's end ends."""
        return self._body is not None and self._body.complete

    async def read(self, limit: int = 1 << 20, limit_s: float = math.inf) -> bytes:
        """Read the whole body. Raises UpstreamError above `limit` bytes, UpstreamTimeout after `limit_s` seconds."""
        body = bytearray()
        with trio.move_on_after(limit_s):
            async for chunk in self.chunks():
                body += chunk
                if len(body) > limit:
                    raise UpstreamError(f"the answer is longer than {limit} bytes")
            return bytes(body)
        raise UpstreamTimeout(f"no complete answer within {limit_s:g} s")

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another exchange: both messages are complete and no bytes follow.

        A body must have been read to its end. An answer without a body need not be read.
        """
        if not self.head.persistent:
            return False
        if self._body is None:
            return self.head.length == 0 and not self._received
        return self._body.reusable


class _Body:
    """An iterator, not a generator: it needs no cleanup if left early, so trio has nothing to warn about."""

    def __init__(self, received: bytes, stream: trio.abc.Stream) -> None:
        self._received = received
        self._stream = stream

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        """Whether the body was read to its end, as its framing tells it."""
        return False

    @property
    def reusable(self) -> bool:
        """Whether it is complete and no bytes follow it."""
        return False

    async def _more(self) -> bytes:
        """Return the next bytes; b"" at the end of the connection."""
        data, self._received = self._received, b""
        return data or await receive(self._stream)


class _ChunkedBytes(_Body):
    """A chunked body."""

    def __init__(self, received: bytes, stream: trio.abc.Stream) -> None:
        super().__init__(received, stream)
        self._body = ChunkedBody()

    async def __anext__(self) -> bytes:
        body = self._body
        while not body.complete:
            data = await self._more()
            if not data:
                raise UpstreamError(BROKE_OFF)
            try:
                chunk = body.feed(data)
            except ValueError as error:
                raise UpstreamError(f"the answer is not HTTP: {error}") from error
            if chunk:
                return chunk
        raise StopAsyncIteration

    @property
    def complete(self) -> bool:
        return self._body.complete

    @property
    def reusable(self) -> bool:
        return self._body.complete and not self._body.excess


class _CountedBytes(_Body):
    """A body with a Content-Length."""

    def __init__(self, received: bytes, stream: trio.abc.Stream, length: int) -> None:
        super().__init__(received, stream)
        self._remaining = length

    async def __anext__(self) -> bytes:
        if not self._remaining:
            raise StopAsyncIteration
        data = await self._more()
        if not data:
            raise UpstreamError(BROKE_OFF)
        chunk, self._received = data[: self._remaining], data[self._remaining :]
        self._remaining -= len(chunk)
        return chunk

    @property
    def complete(self) -> bool:
        return not self._remaining

    @property
    def reusable(self) -> bool:
        return not self._remaining and not self._received


class _AllBytes(_Body):
    """A body that ends with the connection."""

    async def __anext__(self) -> bytes:
        if data := await self._more():
            return data
        raise StopAsyncIteration


async def receive_head(received: bytes, stream: trio.abc.Stream, method: str) -> Response:
    """Receive the head of the answer that begins with `received`. Raises UpstreamError."""
    while True:
        if split := split_head(received):
            head, received = answer_head(split[0], method), split[1]
            if head.status >= 200:
                return Response(head, received, stream)
            continue  # an interim answer
        data = await receive(stream)
        if not data:
            raise UpstreamError(BROKE_OFF if received else "the connection closed without an answer")
        received += data


async def receive(stream: trio.abc.Stream) -> bytes:
    """Receive bytes; return b"" at the end. Raises UpstreamError."""
    try:
        if type(stream) is trio.SocketStream:
            return await _receive_plain(stream.socket.fileno())
        return bytes(await stream.receive_some(CHUNK))
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
        why = reason(error) if isinstance(error, trio.BrokenResourceError) else None
        raise UpstreamError(f"the connection broke off{f': {why}' if why else ''}") from error


async def _receive_plain(number: int) -> bytes:
    """Receive from a socket's descriptor, for a third of what trio's stream costs. Raises OSError.

    It waits before it reads: an engine's next token is hardly ever there already.
    """
    while True:
        await trio.lowlevel.wait_readable(number)
        try:
            return os.read(number, CHUNK)
        except BlockingIOError:
            continue
