"""An answer as it comes: its head, and the pieces of its body in either framing."""

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
    """The head of an answer, and its body as it comes."""

    status: int
    headers: Mapping[str, str]
    _connection: h11.Connection
    _stream: trio.abc.Stream
    _body: "_Chunks | _ChunkedChunks | None" = field(default=None, init=False)

    def chunks(self) -> AsyncIterator[bytes]:
        """The body's pieces, in the order and the grain in which they arrive; they raise UpstreamError. To be asked
        for once."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked" and self.status not in WITHOUT_BODY:
            self._body = _ChunkedChunks(self._connection.trailing_data[0], self._stream)
        else:
            self._body = _Chunks(self._connection, self._stream)
        return self._body

    async def read(self, limit: int = 1 << 20, limit_s: float = math.inf) -> bytes:
        """The whole body. Raises UpstreamError beyond `limit` bytes, UpstreamTimeout beyond `limit_s` seconds."""
        body = bytearray()
        with trio.move_on_after(limit_s):
            async for chunk in self.chunks():
                body += chunk
                if len(body) > limit:
                    raise UpstreamError(f"the answer is longer than {limit} bytes")
            return bytes(body)
        raise UpstreamTimeout(f"no complete answer within {limit_s:g} s")

    @property
    def at_rest(self) -> bool:
        """Whether both sides have said all, nothing stands behind it, and the connection may carry another exchange.

        A body must have been read to its end for that; an answer without one need not be read at all.
        """
        if self._connection.our_state is not h11.DONE:  # h11 says so of a request when the answer ends the connection
            return False
        if self._body is None and self.headers.get("content-length", "0") == "0":
            return _ended(self._connection)
        return self._body is not None and self._body.at_rest


def _ended(connection: h11.Connection) -> bool:
    """Whether an answer of no bytes is over."""
    if connection.their_state is h11.SEND_BODY:
        try:
            connection.next_event()
        except h11.RemoteProtocolError:
            return False
    return connection.their_state is h11.DONE and not connection.trailing_data[0]


class _ChunkedChunks:
    """As _Chunks, of a chunked body, which h11 takes its time for."""

    def __init__(self, begun: bytes, stream: trio.abc.Stream) -> None:
        self._come = begun
        self._stream = stream
        self._body = ChunkedBody()

    def __aiter__(self) -> "_ChunkedChunks":
        return self

    async def __anext__(self) -> bytes:
        body = self._body
        while not body.complete:
            data = self._come or await received(self._stream)
            self._come = b""
            if not data:
                raise UpstreamError("the connection closed before the answer was complete")
            try:
                piece = body.feed(data)
            except ValueError as error:
                raise UpstreamError(f"the answer is not HTTP: {error}") from error
            if piece:
                return piece
        raise StopAsyncIteration

    @property
    def at_rest(self) -> bool:
        """Whether the body has been read to its end, and nothing stands behind it."""
        return self._body.complete and not self._body.behind


@dataclass
class _Chunks:
    """An iterator and no generator: one that is left early has nothing to clean up, and trio nothing to warn of."""

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
    def at_rest(self) -> bool:
        """As that of _ChunkedChunks."""
        return self._connection.their_state is h11.DONE and not self._connection.trailing_data[0]


async def next_event(connection: h11.Connection, stream: trio.abc.Stream) -> h11.Event:
    """What comes next, as h11 reads it. Raises UpstreamError."""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            if connection.trailing_data[1]:  # the other side has closed
                raise UpstreamError("the connection closed before the answer was complete") from error
            raise UpstreamError(f"the answer is not HTTP: {error}") from error
        if event is not h11.NEED_DATA:
            return event  # type: ignore[return-value]
        connection.receive_data(await received(stream))


async def received(stream: trio.abc.Stream) -> bytes:
    """What has come, b"" at the end. Raises UpstreamError."""
    try:
        return bytes(await stream.receive_some(CHUNK))
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        told = reason(error) if isinstance(error, trio.BrokenResourceError) else None
        raise UpstreamError(f"the connection broke off{f': {told}' if told else ''}") from error
