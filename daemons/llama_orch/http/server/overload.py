"""The bound on the open connections of a listener. Clients above it get 503 at once and are told when to retry.

Waiting in the backlog would leave them in the dark, and a health check too; a descriptor is needed either way.
"""

import resource
from collections.abc import Awaitable, Callable

import trio

from llama_orch.contracts.errors import ErrorBody, ErrorCode
from llama_orch.http.tls.secured import Wire
from llama_orch.telemetry.events.service import CONNECTIONS_REFUSED
from llama_orch.telemetry.log_limit import LogLimit
from llama_orch.telemetry.records import emit

RESERVE = 256
"""Descriptors for files, pipes and the sockets of systemd."""
SHARES = 4
"""A daemon has up to three listeners. What is left is for connections to engines and other daemons."""
REFUSALS_AT_ONCE = 64
"""Further clients are disconnected without an answer."""
REFUSAL_LIMIT_S = 2.0
CHUNK = 65536
RETRY_S = 1

Secure = Callable[[trio.SocketStream], Awaitable[Wire | None]]
"""Perform the TLS handshake, if there is one. None if it fails."""


def connection_limit(descriptors: int | None = None) -> int:
    """Return how many connections a listener may have; `descriptors`: by default the limit of this process."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if descriptors is None else descriptors
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20
    return max(16, (soft - RESERVE) // SHARES)


def _answer() -> bytes:
    error = ErrorBody(
        code=ErrorCode.ADMISSION_REJECT,
        message="too many connections are open",
        hint="Reuse connections, or raise LimitNOFILE= of the daemon's unit; see LIMITS in llama-orch(7).",
        retriable=True,
        retry_after_ms=1000 * RETRY_S,
    )
    body = error.model_dump_json(exclude_none=True).encode()
    head = f"HTTP/1.1 503 \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}retry-after: {RETRY_S}\r\nconnection: close\r\n\r\n".encode() + body


class Refusals:
    """Refuses the clients of the listener `name` that has `limit` open connections."""

    def __init__(self, name: str, limit: int, secure: Secure) -> None:
        self._name = name
        self._limit = limit
        self._secure = secure
        self._running = 0
        self._log_limit = LogLimit()

    async def refuse(self, stream: trio.SocketStream) -> None:
        """Answer 503 and close `stream`, in at most REFUSAL_LIMIT_S seconds."""
        if self._log_limit.due(self._name):
            emit(CONNECTIONS_REFUSED, listener=self._name, limit=self._limit)
        self._running += 1
        try:
            if self._running <= REFUSALS_AT_ONCE:
                with trio.move_on_after(REFUSAL_LIMIT_S):
                    await self._answer(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has left
        finally:
            self._running -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.SocketStream) -> None:
        wire = await self._secure(stream)
        if wire is None:
            return
        await wire.send_all(_answer())
        await wire.send_eof()
        # closing a socket with unread data resets it, and the client might lose the answer
        while await wire.receive_some(CHUNK):
            pass
