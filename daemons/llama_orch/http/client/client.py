"""The HTTP/1.1 client that engines and neighbouring daemons are asked with: h11 over trio streams.

Leaving an exchange before its end closes the connection, which is how a request is cancelled: an engine frees the slot
of a streamed request within about 10 ms of that (measured with llama-server). Each exchange has a connection of its
own, unless the caller keeps connections: then one whose answer was read to its end serves the next. httpx was rejected
here because httpcore 1.0.9 leaks pool slots when requests are cancelled.
"""

import json
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import h11
import trio

from llama_orch.http.client.answer import CHUNK, Response, next_event, received
from llama_orch.http.client.connecting import Origin, connect, where
from llama_orch.http.client.kept_connections import LIMIT_S, KeptConnections
from llama_orch.http.client.upstream import ConnectTimeout, Unanswered, Unreachable, UpstreamError, UpstreamTimeout
from llama_orch.http.tls.secured import Wire

__all__ = [
    "ConnectTimeout",
    "KeptConnections",
    "Response",
    "Unreachable",
    "UpstreamError",
    "UpstreamTimeout",
    "fetch",
    "fetch_json",
    "request",
]

PIECE = 256 << 10
NETWORK_S = 1.0
"""So much earlier than a server says that it closes an idle connection, it is not used any more."""


Pieces = Iterator[bytes | memoryview]


@dataclass(frozen=True)
class _Request:
    """A request as it is sent, perhaps twice."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes | bytearray

    def begun(self) -> tuple[h11.Connection, bytes]:
        """The bytes before the body, and what reads the answer. Raises UpstreamError for what is no HTTP."""
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=CHUNK)
        try:
            head = h11.Request(method=self.method, target=self.target, headers=self.fields)
            data = connection.send(head) or b""
        except (h11.LocalProtocolError, UnicodeError) as error:
            raise UpstreamError(f"the request cannot be put into HTTP: {error}") from error
        if self.body:
            connection.send_with_data_passthrough(h11.Data(data=self.body))  # type: ignore[arg-type]
        connection.send(h11.EndOfMessage())
        return connection, data

    def pieces(self, head: bytes) -> Iterator[bytes | memoryview]:
        """What is sent: all at once, or a long body in pieces, since TLS seals each in one go."""
        if len(self.body) <= PIECE:
            yield head + self.body
            return
        yield head
        with memoryview(self.body) as body:
            yield from (body[at : at + PIECE] for at in range(0, len(body), PIECE))


@asynccontextmanager
async def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | bytearray = b"",
    connect_s: float = 5.0,
    head_s: float = 30.0,
    connections: KeptConnections | None = None,
    repeatable: bool = False,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Response]:
    """Send one request and yield its Response once the head has come; leaving closes the connection.

    `connect_s` and `head_s` bound, in seconds, the connection and the wait for the head of the answer; the caller
    bounds the wait for the body. Raises UpstreamError and UpstreamTimeout.

    An https:// URL is asked over TLS by `tls`; without it the other side is held against the CAs of the system.

    With `connections` an idle one of them is used, if there is one, and the connection is kept once the answer was read
    to its end; left in any other way it is closed all the same. An idle connection may turn out to be closed by the
    other side: then the request is sent once more if it is `repeatable`, that is, if nothing is wrong when it is served
    twice. Nobody can tell whether the other side had read it (RFC 9110, 9.2.2), so that otherwise the error is the
    caller's: Unreachable where the request had not even left, or else UpstreamError.
    """
    origin, parts = where(url, tls)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = [("host", parts.netloc), ("connection", "close" if connections is None else "keep-alive")]
    fields += (headers or {}).items()
    if body or method in ("POST", "PUT"):
        fields.append(("content-length", str(len(body))))
    asked = _Request(method, target, fields, body)
    stream, response = await _answered(asked, origin, connect_s, head_s, connections, repeatable)
    left_well = False
    try:
        yield response
        left_well = True
    finally:
        if connections is not None and left_well and response.at_rest:
            connections.keep(origin, stream, _idle_s(response.headers))
        else:
            await trio.aclose_forcefully(stream)


async def _answered(
    asked: _Request,
    origin: Origin,
    connect_s: float,
    head_s: float,
    connections: KeptConnections | None,
    repeatable: bool,
) -> tuple[Wire, Response]:
    """The answer's head, and the connection over which it has come."""
    connection, head = asked.begun()
    if connections is not None and (kept := connections.take(origin)):
        try:
            return kept, await _heard(kept, connection, asked.pieces(head), head_s)
        except Unanswered as error:
            if not repeatable:
                raise (error if error.sent else Unreachable(f"the request has not left: {error}")) from error
            connection, head = asked.begun()
    stream = await connect(origin, connect_s)
    return stream, await _heard(stream, connection, asked.pieces(head), head_s)


async def _heard(stream: Wire, connection: h11.Connection, data: Pieces, limit_s: float) -> Response:
    """The head of the answer to `data`; where there is none, the stream is closed."""
    try:
        with trio.fail_after(limit_s):
            return await _head(stream, connection, data)
    except trio.TooSlowError as error:
        await trio.aclose_forcefully(stream)
        raise UpstreamTimeout(f"no answer within {limit_s:g} s") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _head(stream: Wire, connection: h11.Connection, data: Pieces) -> Response:
    sent = False
    # who refuses a request may close before the body is through; the answer is there all the same
    with suppress(trio.BrokenResourceError):
        for piece in data:
            await stream.send_all(piece)
        sent = True
    connection.receive_data(await _begun(stream, sent))
    event = await next_event(connection, stream)
    while isinstance(event, h11.InformationalResponse):
        event = await next_event(connection, stream)
    if not isinstance(event, h11.Response):
        raise UpstreamError("the connection closed without an answer")
    names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
    return Response(event.status_code, names, connection, stream)


async def _begun(stream: Wire, sent: bool) -> bytes:
    """The answer's first bytes. Raises Unanswered where there are none."""
    try:
        data = await received(stream)
    except UpstreamError as error:
        raise Unanswered(str(error), sent=sent) from error
    if not data:
        raise Unanswered("the connection closed before the answer was complete", sent=sent)
    return data


def _idle_s(headers: Mapping[str, str]) -> float:
    """How long the other side lets a connection idle, as far as it says so."""
    told = re.search(r"\btimeout=(\d{1,6})\b", headers.get("keep-alive", ""))
    return int(told[1]) - NETWORK_S if told else LIMIT_S


async def fetch(
    url: str,
    *,
    limit_s: float,
    headers: Mapping[str, str] | None = None,
    size: int = 1 << 20,
    connections: KeptConnections | None = None,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, bytes]:
    """GET `url`: status and body, all of it within `limit_s` seconds and `size` bytes. Raises UpstreamError."""
    asking = request(
        "GET",
        url,
        headers=headers,
        connect_s=limit_s,
        head_s=limit_s,
        connections=connections,
        tls=tls,
        repeatable=True,  # RFC 9110, 9.2.1: a GET asks for nothing to be done
    )
    try:
        with trio.fail_after(limit_s):
            async with asking as response:
                return response.status, await response.read(size)
    except trio.TooSlowError as error:
        raise UpstreamTimeout(f"no complete answer within {limit_s:g} s") from error


async def fetch_json(
    url: str, *, limit_s: float, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> tuple[int, Any]:
    """As `fetch`, with the body parsed as JSON. Raises UpstreamError also where it is none."""
    status, body = await fetch(url, limit_s=limit_s, headers=headers, tls=tls)
    try:
        return status, json.loads(body)
    except ValueError as error:
        raise UpstreamError("the answer is not JSON") from error
