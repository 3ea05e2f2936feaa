"""The HTTP/1.1 client that engines and neighbouring daemons are asked with: h11 over trio streams.

One connection an exchange; leaving the exchange closes the connection, which is how a request is cancelled: an
engine frees the slot of a streamed request within about 10 ms of that (measured with llama-server). httpx was
rejected here because httpcore 1.0.9 leaks pool slots when requests are cancelled.
"""

import json
import math
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import h11
import trio

from llama_orch.http.chunked import ChunkedBody

CHUNK = 65536
WITHOUT_BODY = (204, 304)


class UpstreamError(Exception):
    """The other side could not be reached, broke off, or did not speak HTTP; the text says which."""


class UpstreamTimeout(UpstreamError):
    """The other side did not answer within the caller's limit."""


class Unreachable(UpstreamError):
    """There was no connection: the other side has heard nothing of the request."""


class ConnectTimeout(UpstreamTimeout, Unreachable):
    """There was no connection within the caller's limit."""


@dataclass
class Response:
    """The head of an answer, and its body as it comes."""

    status: int
    headers: Mapping[str, str]
    _connection: h11.Connection
    _stream: trio.abc.Stream

    def chunks(self) -> AsyncIterator[bytes]:
        """The body's pieces, in the order and the grain in which they arrive; they raise UpstreamError. To be asked
        for once."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked" and self.status not in WITHOUT_BODY:
            return _ChunkedChunks(self._connection.trailing_data[0], self._stream)
        return _Chunks(self._connection, self._stream)

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
            data = self._come or await _received(self._stream)
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


async def _received(stream: trio.abc.Stream) -> bytes:
    try:
        return bytes(await stream.receive_some(CHUNK))
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise UpstreamError("the connection broke off") from error


@dataclass
class _Chunks:
    """An iterator and no generator: one that is left early has nothing to clean up, and trio nothing to warn of."""

    _connection: h11.Connection
    _stream: trio.abc.Stream

    def __aiter__(self) -> "_Chunks":
        return self

    async def __anext__(self) -> bytes:
        event = await _next_event(self._connection, self._stream)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            raise StopAsyncIteration
        raise UpstreamError("the connection closed before the answer was complete")


async def _next_event(connection: h11.Connection, stream: trio.abc.Stream) -> h11.Event:
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            if connection.trailing_data[1]:  # the other side has closed
                raise UpstreamError("the connection closed before the answer was complete") from error
            raise UpstreamError(f"the answer is not HTTP: {error}") from error
        if event is not h11.NEED_DATA:
            return event  # type: ignore[return-value]
        connection.receive_data(await _received(stream))


def _where(url: str) -> tuple[SplitResult, int]:
    """`url` in its parts, and its port. Raises UpstreamError for what this client cannot ask."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise UpstreamError(f"{url} is not of the form http://HOST:PORT; TLS is not spoken here")
    try:
        return parts, parts.port or 80
    except ValueError as error:
        raise UpstreamError(f"{url} is no URL: {error}") from error


async def _to_loopback(port: int) -> trio.SocketStream:
    """Where engines are, without the nursery and the look-up that open_tcp_stream makes for a name."""
    sock = trio.socket.socket()
    try:
        await sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def _connect(host: str, port: int, limit_s: float) -> trio.SocketStream:
    try:
        with trio.fail_after(limit_s):
            if host == "127.0.0.1":
                return await _to_loopback(port)
            return await trio.open_tcp_stream(host, port)
    except trio.TooSlowError as error:
        raise ConnectTimeout(f"no connection to {host}:{port} within {limit_s:g} s") from error
    except OSError as error:
        raise Unreachable(f"cannot connect to {host}:{port}: {_reason(error)}") from error
    except UnicodeError as error:
        raise Unreachable(f"cannot connect to {host}:{port}: that is no host name") from error


def _reason(error: OSError) -> str:
    """Why no address could be connected to: trio keeps the single reasons as the cause."""
    cause = error.__cause__
    attempts = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause or error,)
    return ", ".join(dict.fromkeys(_words(attempt) for attempt in attempts))


def _words(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number and number > 0 else str(getattr(error, "strerror", None) or error)


@asynccontextmanager
async def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    connect_s: float = 5.0,
    head_s: float = 30.0,
) -> AsyncIterator[Response]:
    """Send one request and yield its Response once the head has come; leaving closes the connection.

    `connect_s` and `head_s` bound, in seconds, the connection and the wait for the head of the answer; the caller
    bounds the wait for the body. Raises UpstreamError and UpstreamTimeout.
    """
    parts, port = _where(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=CHUNK)
    fields = [("host", parts.netloc), ("connection", "close"), *(headers or {}).items()]
    if body or method in ("POST", "PUT"):
        fields.append(("content-length", str(len(body))))
    data = _encoded(connection, method, target, fields, body)
    stream = await _connect(parts.hostname or "", port, connect_s)
    try:
        yield await _head(connection, stream, data, head_s)
    finally:
        await trio.aclose_forcefully(stream)


def _encoded(connection: h11.Connection, method: str, target: str, fields: list[tuple[str, str]], body: bytes) -> bytes:
    try:
        data = connection.send(h11.Request(method=method, target=target, headers=fields)) or b""
    except (h11.LocalProtocolError, UnicodeError) as error:
        raise UpstreamError(f"the request cannot be put into HTTP: {error}") from error
    data += connection.send(h11.Data(data=body)) or b"" if body else b""
    return data + (connection.send(h11.EndOfMessage()) or b"")


async def _head(connection: h11.Connection, stream: trio.SocketStream, data: bytes, limit_s: float) -> Response:
    try:
        with trio.fail_after(limit_s):
            # who refuses a request may close before the body is through; the answer is there all the same
            with suppress(trio.BrokenResourceError):
                await stream.send_all(data)
            event = await _next_event(connection, stream)
            while isinstance(event, h11.InformationalResponse):
                event = await _next_event(connection, stream)
    except trio.TooSlowError as error:
        raise UpstreamTimeout(f"no answer within {limit_s:g} s") from error
    if not isinstance(event, h11.Response):
        raise UpstreamError("the connection closed without an answer")
    names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
    return Response(event.status_code, names, connection, stream)


async def fetch(
    url: str, *, limit_s: float, headers: Mapping[str, str] | None = None, size: int = 1 << 20
) -> tuple[int, bytes]:
    """GET `url`: status and body, all of it within `limit_s` seconds and `size` bytes. Raises UpstreamError."""
    try:
        with trio.fail_after(limit_s):
            async with request("GET", url, headers=headers, connect_s=limit_s, head_s=limit_s) as response:
                return response.status, await response.read(size)
    except trio.TooSlowError as error:
        raise UpstreamTimeout(f"no complete answer within {limit_s:g} s") from error


async def fetch_json(url: str, *, limit_s: float, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """As `fetch`, with the body parsed as JSON. Raises UpstreamError also where it is none."""
    status, body = await fetch(url, limit_s=limit_s, headers=headers)
    try:
        return status, json.loads(body)
    except ValueError as error:
        raise UpstreamError("the answer is not JSON") from error
