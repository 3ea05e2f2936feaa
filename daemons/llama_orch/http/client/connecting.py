"""From a URL to a connection: where it leads, and the stream that goes there, over TLS where the URL says so."""

import os
import ssl
from functools import cache
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

import trio

from llama_orch.http.client.upstream import ConnectTimeout, NoTls, Unreachable, UpstreamError
from llama_orch.http.tls.secured import Secured, Wire, reason

PORTS = {"http": 80, "https": 443}
UNIX = "http+unix"
"""The scheme of HTTP over a Unix socket: the host is the socket's path, percent-encoded."""


class Origin(NamedTuple):
    """What a connection leads to: two requests with the same can go over one. `host` is a path for a Unix socket."""

    scheme: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return self.host if self.scheme == UNIX else f"{self.host}:{self.port}"


def unix_url(path: str) -> str:
    """The URL of the HTTP server that listens on the Unix socket at `path`."""
    return f"{UNIX}://{quote(path, safe='')}"


def where(url: str, tls: ssl.SSLContext | None = None) -> tuple[Origin, SplitResult]:
    """Where `url` leads, and its parts. Raises UpstreamError for what this client cannot ask."""
    parts = urlsplit(url)
    if parts.scheme == UNIX:
        return Origin(UNIX, unquote(parts.netloc), 0), parts._replace(netloc="localhost")
    if parts.scheme not in PORTS or not parts.hostname:
        raise UpstreamError(f"{url} is not of the form http://HOST:PORT or https://HOST:PORT")
    try:
        port = parts.port or PORTS[parts.scheme]
        return Origin(parts.scheme, parts.hostname, port, tls if parts.scheme == "https" else None), parts
    except ValueError as error:
        raise UpstreamError(f"{url} is no URL: {error}") from error


async def connect(origin: Origin, limit_s: float) -> Wire:
    """A fresh connection. Raises Unreachable, which ConnectTimeout is, too."""
    try:
        with trio.fail_after(limit_s):
            stream = await _opened(origin)
            return await _secured(stream, origin) if origin.scheme == "https" else stream
    except trio.TooSlowError as error:
        raise ConnectTimeout(f"no connection to {origin} within {limit_s:g} s") from error
    except OSError as error:
        raise Unreachable(f"cannot connect to {origin}: {_reason(error)}") from error
    except UnicodeError as error:
        raise Unreachable(f"cannot connect to {origin}: that is no host name") from error


async def _opened(origin: Origin) -> trio.SocketStream:
    if origin.scheme == UNIX:
        return await trio.open_unix_socket(origin.host)
    if origin.host == "127.0.0.1":
        return await _to_loopback(origin.port)
    return await trio.open_tcp_stream(origin.host, origin.port)


async def _secured(stream: trio.SocketStream, origin: Origin) -> Secured:
    """`stream` with TLS; it is closed where there is none."""
    try:
        context = origin.tls
        if context is None:
            context = await trio.to_thread.run_sync(_of_the_system)
        secured = Secured(stream, context, origin.host)
        await secured.handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise NoTls(f"no TLS with {origin}: {reason(error) or 'the connection broke off'}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


@cache
def _of_the_system() -> ssl.SSLContext:
    """What others are held against where the caller says nothing; made when it is first needed."""
    return ssl.create_default_context()


async def _to_loopback(port: int) -> trio.SocketStream:
    """Where engines are, without the nursery and the look-up that open_tcp_stream makes for a name."""
    sock = trio.socket.socket()
    try:
        await sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


def _reason(error: OSError) -> str:
    """Why no address could be connected to: trio keeps the single reasons as the cause."""
    cause = error.__cause__
    attempts = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause or error,)
    return ", ".join(dict.fromkeys(_words(attempt) for attempt in attempts))


def _words(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number and number > 0 else str(getattr(error, "strerror", None) or error)
