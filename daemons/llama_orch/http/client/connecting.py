"""Connect to the server of a URL, over TLS for https://."""

import os
import ssl
from functools import cache
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

import trio

from llama_orch.http.client.upstream import ConnectTimeout, NoTls, Unreachable, UpstreamError
from llama_orch.http.tls.secured import TlsStream, Wire, reason

PORTS = {"http": 80, "https": 443}
UNIX = "http+unix"
"""The scheme for HTTP over a Unix socket; the host is the percent-encoded path of the socket."""


class Origin(NamedTuple):
    """The endpoint of a connection. Requests with equal origins can share one. `host` is a path for a Unix socket."""

    scheme: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return self.host if self.scheme == UNIX else f"{self.host}:{self.port}"


def unix_url(path: str) -> str:
    """Return the URL of the HTTP server on the Unix socket at `path`."""
    return f"{UNIX}://{quote(path, safe='')}"


def where(url: str, tls: ssl.SSLContext | None = None) -> tuple[Origin, SplitResult]:
    """Return the origin and the parts of `url`. Raises UpstreamError if the URL is not supported."""
    parts = urlsplit(url)
    if parts.scheme == UNIX:
        return Origin(UNIX, unquote(parts.netloc), 0), parts._replace(netloc="localhost")
    if parts.scheme not in PORTS or not parts.hostname:
        raise UpstreamError(f"invalid URL {url} (allowed: http://HOST:PORT or https://HOST:PORT)")
    try:
        port = parts.port or PORTS[parts.scheme]
        return Origin(parts.scheme, parts.hostname, port, tls if parts.scheme == "https" else None), parts
    except ValueError as error:
        raise UpstreamError(f"invalid URL {url}: {error}") from error


async def connect(origin: Origin, limit_s: float) -> Wire:
    """Open a connection. Raises Unreachable, or its subclass ConnectTimeout."""
    try:
        with trio.fail_after(limit_s):
            stream = await _open(origin)
            return await _start_tls(stream, origin) if origin.scheme == "https" else stream
    except trio.TooSlowError as error:
        raise ConnectTimeout(f"no connection to {origin} within {limit_s:g} s") from error
    except OSError as error:
        raise Unreachable(f"cannot connect to {origin}: {_reason(error)}") from error
    except UnicodeError as error:
        raise Unreachable(f"cannot connect to {origin}: invalid host name") from error


async def _open(origin: Origin) -> trio.SocketStream:
    if origin.scheme == UNIX:
        return await trio.open_unix_socket(origin.host)
    if origin.host == "127.0.0.1":
        return await _connect_loopback(origin.port)
    return await trio.open_tcp_stream(origin.host, origin.port)


async def _start_tls(stream: trio.SocketStream, origin: Origin) -> TlsStream:
    """Return `stream` with TLS. Closes it if the handshake fails."""
    try:
        context = origin.tls
        if context is None:
            context = await trio.to_thread.run_sync(_system_context)
        secured = TlsStream(stream, context, origin.host)
        await secured.handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise NoTls(f"TLS handshake with {origin} failed: {reason(error) or 'the connection broke off'}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


@cache
def _system_context() -> ssl.SSLContext:
    """Return a context that trusts the system's CAs. Loading it takes time, so it is made on first use."""
    return ssl.create_default_context()


async def _connect_loopback(port: int) -> trio.SocketStream:
    """Connect to an engine without the nursery and the name lookup of open_tcp_stream."""
    sock = trio.socket.socket()
    try:
        await sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


def _reason(error: OSError) -> str:
    """Return why no address could be reached; trio keeps the error of each address in the cause."""
    cause = error.__cause__
    attempts = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause or error,)
    return ", ".join(dict.fromkeys(_error_text(attempt) for attempt in attempts))


def _error_text(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number and number > 0 else str(getattr(error, "strerror", None) or error)
