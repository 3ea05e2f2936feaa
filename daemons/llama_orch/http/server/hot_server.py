"""Serve the hot paths without hypercorn's tasks, shields and sends per request.

The head and the first chunk of an answer go out in one send. A connection stays here as long as its requests are for
hot paths. The first other request hands it over to hypercorn, together with the bytes already read. hypercorn serves
1,500 to 1,900 small requests a second on a core.
"""

from collections.abc import Callable

import trio

from llama_orch.http.server.exchange import AsgiApp
from llama_orch.http.server.h11_exchange import H11Exchange
from llama_orch.http.server.hang_ups import HangUp
from llama_orch.http.server.hot_exchange import HEAD_LIMIT, receive
from llama_orch.http.server.plain_exchange import PlainExchange, plain_request
from llama_orch.http.tls.secured import TlsStream, Wire

RESUMED_CHUNK = 2048
"""Bytes per read for hypercorn, which needs 25 µs per chunk and handles all chunks of a read without a checkpoint."""
IDLE_LIMIT_S = 60.0
NEWCOMER_S = 1.0
"""Seconds that a client accepted just before a shutdown has to send its first request."""

IsHot = Callable[[str, str], bool]


class HotConnection:
    """One connection. The caller owns and closes the stream."""

    def __init__(
        self, stream: Wire, app: AsgiApp, is_hot: IsHot, idle: dict[trio.CancelScope, bool], hang_up: HangUp
    ) -> None:
        self._stream = stream
        self._hang_up = hang_up
        self._app = app
        self._is_hot = is_hot
        self._idle = idle

    async def serve(self, stopping: Callable[[], bool]) -> bytes | None:
        """Serve hot requests. Return None at the end of the connection, or the bytes already read of another request.

        While it waits for a request its cancel scope is in `idle`, so that a shutdown can end the wait. The value there
        is whether that is the connection's first request, which is served even during a shutdown.
        """
        received: bytes | None = b""
        first = True
        while received is not None and (first or not stopping()):
            limit_s = NEWCOMER_S if stopping() else IDLE_LIMIT_S
            received = await self._receive_request_line(received, first, limit_s)
            first = False
            if not received or not self._is_hot(*_method_and_path(received)):
                return received or None
            if plain := plain_request(received):
                received = await PlainExchange(self._stream, self._app, self._hang_up, plain).run()
            else:
                received = await H11Exchange(self._stream, self._app, self._hang_up).run(received)
        return None

    async def _receive_request_line(self, received: bytes, first: bool, limit_s: float) -> bytes:
        """Receive until there is a whole line. Return b"" if none arrives in time."""
        with trio.move_on_after(limit_s) as scope:
            self._idle[scope] = first
            try:
                while b"\n" not in received and len(received) < HEAD_LIMIT:
                    if not (data := await receive(self._stream)):
                        return b""
                    received += data
            finally:
                del self._idle[scope]
            return received
        return b""


def _method_and_path(received: bytes) -> tuple[str, str]:
    method, _, rest = received.partition(b"\n")[0].decode("latin-1").partition(" ")
    return method, rest.partition(" ")[0].partition("?")[0]


class Resumed(trio.abc.HalfCloseableStream):
    """A stream whose reader first gets `received`, which was already read from it."""

    def __init__(self, stream: Wire, received: bytes) -> None:
        self._stream = stream
        self._received = received
        self.socket = stream.socket
        self.secure = isinstance(stream, TlsStream)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._received:
            received, self._received = self._received, b""
            await trio.lowlevel.checkpoint()
            return received
        return await self._stream.receive_some(min(max_bytes or RESUMED_CHUNK, RESUMED_CHUNK))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
