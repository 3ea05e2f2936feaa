"""From a URL to a connection: where it leads, and the stream that goes there."""

import os
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import trio

from llama_orch.http.upstream import ConnectTimeout, Unreachable, UpstreamError


class Origin(NamedTuple):
    """What a connection leads to: two requests with the same can go over one."""

    scheme: str
    host: str
    port: int


def where(url: str) -> tuple[Origin, SplitResult]:
    """Where `url` leads, and its parts. Raises UpstreamError for what this client cannot ask."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise UpstreamError(f"{url} is not of the form http://HOST:PORT; TLS is not spoken here")
    try:
        return Origin(parts.scheme, parts.hostname, parts.port or 80), parts
    except ValueError as error:
        raise UpstreamError(f"{url} is no URL: {error}") from error


async def connect(origin: Origin, limit_s: float) -> trio.SocketStream:
    """A fresh connection. Raises Unreachable, which ConnectTimeout is, too."""
    host, port = origin.host, origin.port
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
