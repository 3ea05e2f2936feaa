"""Server-side TLS handshakes: limited in time, ended early by a shutdown, logged when they fail."""

import ssl
from collections.abc import Callable

import trio

from llama_orch.http.server.hot_server import NEWCOMER_S
from llama_orch.http.tls.secured import TlsStream, reason
from llama_orch.telemetry.events.service import HANDSHAKE_FAILED
from llama_orch.telemetry.log_limit import LogLimit
from llama_orch.telemetry.records import emit

LIMIT_S = 10.0


class Handshakes:
    """The handshakes of one server; `context` returns that of the next one, which is never None.

    During a handshake its cancel scope is in `idle`, like that of a connection that waits for its first request.
    """

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext | None],
        idle: dict[trio.CancelScope, bool],
        stopping: Callable[[], bool],
    ) -> None:
        self._context = context
        self._idle = idle
        self._stopping = stopping
        self._log_limit = LogLimit()

    async def secured(self, stream: trio.SocketStream) -> TlsStream | None:
        """Return `stream` with TLS, or None if the handshake fails."""
        context = self._context()
        assert context
        secured, failed = TlsStream(stream, context), "the handshake timed out"
        with trio.move_on_after(NEWCOMER_S if self._stopping() else LIMIT_S) as scope:
            self._idle[scope] = True
            try:
                await secured.handshake()
            except trio.BrokenResourceError as error:
                failed = reason(error) or ""  # a client that just leaves is not logged
            except trio.ClosedResourceError:
                return None
            else:
                return secured
            finally:
                del self._idle[scope]
        self._log(stream, failed)
        return None

    def _log(self, stream: trio.SocketStream, failed: str) -> None:
        try:
            peer = str(stream.socket.getpeername()[0])
        except OSError:
            return
        if failed and not self._stopping() and self._log_limit.due(peer):
            emit(HANDSHAKE_FAILED, peer=peer, reason=failed)
