"""The server's side of TLS handshakes: bounded in time, ended early by a stop, and told of when they fail."""

import ssl
from collections.abc import Callable

import trio

from llama_orch.http.server.hot_server import NEWCOMER_S
from llama_orch.http.tls.secured import Secured, reason
from llama_orch.telemetry.events import HANDSHAKE_FAILED
from llama_orch.telemetry.records import emit
from llama_orch.telemetry.sparing import Sparing

LIMIT_S = 10.0


class Handshakes:
    """Those of one server. While one is under way its cancel scope is in `idle`, as that of a connection which waits
    for its first request."""

    def __init__(
        self, context: ssl.SSLContext, idle: dict[trio.CancelScope, bool], stopping: Callable[[], bool]
    ) -> None:
        self._context = context
        self._idle = idle
        self._stopping = stopping
        self._told = Sparing()

    async def secured(self, stream: trio.SocketStream) -> Secured | None:
        """`stream` with TLS, or None where none comes about."""
        secured, failed = Secured(stream, self._context), "no handshake in time"
        with trio.move_on_after(NEWCOMER_S if self._stopping() else LIMIT_S) as scope:
            self._idle[scope] = True
            try:
                await secured.handshake()
            except trio.BrokenResourceError as error:
                failed = reason(error) or ""  # who just leaves is not worth a line
            except trio.ClosedResourceError:
                return None
            else:
                return secured
            finally:
                del self._idle[scope]
        self._tell(stream, failed)
        return None

    def _tell(self, stream: trio.SocketStream, failed: str) -> None:
        try:
            peer = str(stream.socket.getpeername()[0])
        except OSError:
            return
        if failed and not self._stopping() and self._told.due(peer):
            emit(HANDSHAKE_FAILED, peer=peer, reason=failed)
