"""An answer: its head, and its body as a stream of chunks in either framing."""

import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import h11
import trio

from llama_orch.http.client.chunked import ChunkedBody
from llama_orch.http.client.upstream import UpstreamError, UpstreamTimeout
from llama_orch.http.tls.secured import reason

CHUNK = 65536
WITHOUT_BODY = (204, 304)


@dataclass
class Response:
    """The head of an answer, and its body while it arrives."""

    status: int
    headers: Mapping[str, str]
    _connection: h11.Connection
    _stream: trio.abc.Stream
    _body: "_Chunks | _ChunkedChunks | None" = field(default=None, init=False)

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body's chunks as they arrive. The iterator raises UpstreamError. Call it only once."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked" and self.status not in WITHOUT_BODY:
            self._body = _ChunkedChunks(self._connection.trailing_data[0], self._stream)
        else:
            self._body = _Chunks(self._connection, self._stream)
        return self._body

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
        if self._connection.our_state is not h11.DONE:  # not DONE also if the answer ends the connection
            return False
        if self._body is None and self.headers.get("content-length", "0") == "0":
            return _ended(self._connection)
        return self._body is not None and self._body.reusable


def _ended(connection: h11.Connection) -> bool:
    """Return whether an answer with an empty body is complete."""
    if connection.their_state is h11.SEND_BODY:
        try:
            connection.next_event()
        except h11.RemoteProtocolError:
            return False
    return connection.their_state is h11.DONE and not connection.trailing_data[0]


class _ChunkedChunks:
    """Like _Chunks for a chunked body, faster than h11."""

    def __init__(self, received: bytes, stream: trio.abc.Stream) -> None:
        self._received = received
        self._stream = stream
        self._body = ChunkedBody()

    def __aiter__(self) -> "_ChunkedChunks":
        return self

    async def __anext__(self) -> bytes:
        body = self._body
        while not body.complete:
            data = self._received or await receive(self._stream)
            self._received = b""
            if not data:
                raise UpstreamError("the connection closed before the answer was complete")
            try:
                chunk = body.feed(data)
            except ValueError as error:
                raise UpstreamError(f"the answer is not HTTP: {error}") from error
            if chunk:
                return chunk
        raise StopAsyncIteration

    @property
    def reusable(self) -> bool:
        """Whether the body was read to its end and no bytes follow it."""
        return self._body.complete and not self._body.excess


@dataclass
class _Chunks:
    """An iterator, not a generator: it needs no cleanup if left early, so trio has nothing to warn about."""

    _connection: h11.Connection
    _stream: trio.abc.Stream

    def __aiter__(self) -> "_Chunks":
        return self

    async def __anext__(self) -> bytes:
        event = await next_event(self._connection, self._stream)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            raise StopAsyncIteration
        raise UpstreamError("the connection closed before the answer was complete")

    @property
    def reusable(self) -> bool:
        return self._connection.their_state is h11.DONE and not self._connection.trailing_data[0]


async def next_event(connection: h11.Connection, stream: trio.abc.Stream) -> h11.Event:
    """Return h11's next event. Raises UpstreamError."""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            if connection.trailing_data[1]:  # the other side has closed
                raise UpstreamError("the connection closed before the answer was complete") from error
            raise UpstreamError(f"the answer is not HTTP: {error}") from error
        if event is not h11.NEED_DATA:
            return event  # type: ignore[return-value]
        connection.receive_data(await receive(stream))


async def receive(stream: trio.abc.Stream) -> bytes:
    """Receive bytes; return b"" at the end. Raises UpstreamError."""
    try:
        return bytes(await stream.receive_some(CHUNK))
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        why = reason(error) if isinstance(error, trio.BrokenResourceError) else None
        raise UpstreamError(f"the connection broke off{f': {why}' if why else ''}") from error
