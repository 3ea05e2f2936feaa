"""The HTTP/1.1 client for engines and other daemons, over trio streams.

Leaving an exchange before its end closes the connection, which cancels the request: llama-server frees the slot of a
streamed request within about 10 ms (measured). Each exchange opens a connection of its own, unless the caller passes
`connections`: then a connection whose answer was read to its end is reused. httpx was rejected because httpcore 1.0.9
leaks pool slots when requests are cancelled.
"""

import json
import math
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import trio

from llama_orch.http.client.answer import Response, receive, receive_head
from llama_orch.http.client.connecting import Origin, connect, where
from llama_orch.http.client.head import request_head
from llama_orch.http.client.idle_connections import LIMIT_S, IdleConnections
from llama_orch.http.client.upstream import ConnectTimeout, Unanswered, Unreachable, UpstreamError, UpstreamTimeout
from llama_orch.http.tls.secured import Wire

__all__ = [
    "ConnectTimeout",
    "IdleConnections",
    "Response",
    "Unreachable",
    "UpstreamError",
    "UpstreamTimeout",
    "fetch",
    "fetch_json",
    "request",
]

SEND_CHUNK = 256 << 10
NETWORK_S = 1.0
"""Safety margin: an idle connection is no longer reused so many seconds before the server closes it."""

Chunks = Iterator[bytes | memoryview]


@dataclass(frozen=True)
class _Request:
    """A request, which may be sent twice."""

    method: str
    head: bytes
    body: bytes | bytearray

    def chunks(self) -> Chunks:
        """Yield the bytes to send. A long body is split, because TLS encrypts each chunk without a checkpoint."""
        if len(self.body) <= SEND_CHUNK:
            yield self.head + self.body
            return
        yield self.head
        with memoryview(self.body) as body:
            yield from (body[at : at + SEND_CHUNK] for at in range(0, len(body), SEND_CHUNK))


@asynccontextmanager
async def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | bytearray = b"",
    connect_s: float = 5.0,
    head_s: float = 30.0,
    connections: IdleConnections | None = None,
    repeatable: bool = False,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Response]:
    """Send one request and yield its Response once the head has arrived; leaving closes the connection.

    `connect_s` and `head_s` limit connecting and the wait for the head of the answer, in seconds. The caller limits
    the wait for the body. Raises UpstreamError and UpstreamTimeout.

    https:// URLs use the context `tls`, or one that trusts the system's CAs.

    With `connections`, an idle connection is reused if there is one, and the connection is kept if the answer was read
    to its end. An idle connection may turn out to be closed by the server. Nobody can tell whether the server had read
    the request (RFC 9110, 9.2.2), so it is sent again only if it is `repeatable`, that is, safe to serve twice.
    A request that was not sent in full is sent again over a new connection; otherwise the call raises UpstreamError.
    """
    origin, parts = where(url, tls)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = [("host", parts.netloc), ("connection", "close" if connections is None else "keep-alive")]
    fields += (headers or {}).items()
    if body or method in ("POST", "PUT"):
        fields.append(("content-length", str(len(body))))
    sending = _Request(method, request_head(method, target, fields), body)
    stream, response = await _exchange(sending, origin, connect_s, head_s, connections, repeatable)
    completed = False
    try:
        yield response
        completed = True
    finally:
        if connections is not None and completed and response.reusable:
            connections.keep(origin, stream, _idle_s(response.headers))
        else:
            await trio.aclose_forcefully(stream)


async def _exchange(
    sending: _Request,
    origin: Origin,
    connect_s: float,
    head_s: float,
    connections: IdleConnections | None,
    repeatable: bool,
) -> tuple[Wire, Response]:
    """Send the request; return the connection and the answer's head."""
    if connections is not None and (idle := connections.take(origin)):
        try:
            return idle, await _head_or_close(idle, sending, head_s)
        except Unanswered as error:
            if error.sent and not repeatable:
                raise
    stream = await connect(origin, connect_s)
    return stream, await _head_or_close(stream, sending, head_s)


async def _head_or_close(stream: Wire, sending: _Request, limit_s: float) -> Response:
    """Send the request and return the head of the answer. Closes the stream on any error."""
    try:
        if limit_s == math.inf:
            return await _head(stream, sending)
        with trio.fail_after(limit_s):
            return await _head(stream, sending)
    except trio.TooSlowError as error:
        await trio.aclose_forcefully(stream)
        raise UpstreamTimeout(f"no answer within {limit_s:g} s") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _head(stream: Wire, sending: _Request) -> Response:
    sent = False
    # a server that refuses a request may close before it has read the body; its answer can still be read
    with suppress(trio.BrokenResourceError):
        for chunk in sending.chunks():
            await stream.send_all(chunk)
        sent = True
    return await receive_head(await _first_bytes(stream, sent), stream, sending.method)


async def _first_bytes(stream: Wire, sent: bool) -> bytes:
    """Return the first bytes of the answer. Raises Unanswered if there are none."""
    try:
        data = await receive(stream)
    except UpstreamError as error:
        raise Unanswered(str(error), sent=sent) from error
    if not data:
        raise Unanswered("the connection closed before the answer was complete", sent=sent)
    return data


def _idle_s(headers: Mapping[str, str]) -> float:
    """Return for how long an idle connection can be reused, from the server's Keep-Alive header if it sent one."""
    timeout = re.search(r"\btimeout=(\d{1,6})\b", headers.get("keep-alive", ""))
    return int(timeout[1]) - NETWORK_S if timeout else LIMIT_S


async def fetch(
    url: str,
    *,
    limit_s: float,
    headers: Mapping[str, str] | None = None,
    size: int = 1 << 20,
    connections: IdleConnections | None = None,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, bytes]:
    """GET `url` within `limit_s` seconds and `size` bytes; return status and body. Raises UpstreamError."""
    exchange = request(
        "GET",
        url,
        headers=headers,
        connect_s=limit_s,
        head_s=limit_s,
        connections=connections,
        tls=tls,
        repeatable=True,  # RFC 9110, 9.2.1: GET is a safe method
    )
    try:
        with trio.fail_after(limit_s):
            async with exchange as response:
                return response.status, await response.read(size)
    except trio.TooSlowError as error:
        raise UpstreamTimeout(f"no complete answer within {limit_s:g} s") from error


async def fetch_json(
    url: str, *, limit_s: float, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> tuple[int, Any]:
    """Like `fetch`, with the body parsed as JSON. Raises UpstreamError also if it is not JSON."""
    status, body = await fetch(url, limit_s=limit_s, headers=headers, tls=tls)
    try:
        return status, json.loads(body)
    except ValueError as error:
        raise UpstreamError("the answer is not JSON") from error
