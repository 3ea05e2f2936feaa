"""One request on a hot path and its answer over ASGI: what all of them share, whatever parses the request."""

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import partial
from urllib.parse import unquote

import trio

from llama_orch.http.server.exchange import ABORT, HANG_UP, SEND_NOW, AsgiApp, ClientGone, Message, Scope
from llama_orch.http.server.hang_ups import HangUp
from llama_orch.http.tls.secured import TlsStream, Wire, abort, hung_up

CHUNK = 8192
"""Bytes per read. h11 needs 25 µs for each chunk of a chunked body, and a chunk of two bytes is seven on the wire."""
HEAD_LIMIT = 32 * 1024
SEND_LIMIT_S = 30.0
LINGER_S = 1.0
HANG_UP_S = 0.25


async def receive(stream: Wire) -> bytes:
    """Receive bytes; return b"" when the connection has ended, for whatever reason."""
    try:
        return bytes(await stream.receive_some(CHUNK))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""


class HotExchange(ABC):
    """One request and its answer over ASGI. The head of the answer goes out with its first chunk."""

    def __init__(self, stream: Wire, app: AsgiApp, hang_up: HangUp) -> None:
        self._stream = stream
        self._app = app
        self._hang_up = hang_up
        self._secure = isinstance(stream, TlsStream)
        self._head_only = False
        self._ended = False
        self._unsent = b""
        self._next_request = b""

    @abstractmethod
    def _encoded(self, message: Message) -> bytes:
        """Encode the head or a chunk of the answer; the head waits for the first chunk. Sets `_ended` at the end."""

    def _scope(self, method: bytes, target: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> Scope:
        path, _, query = target.partition(b"?")
        try:
            peer = self._stream.socket.getpeername()
        except OSError as error:  # the connection was reset; its request can still be read
            raise ClientGone from error
        return {
            "type": "http",
            "http_version": version,
            "method": method.decode(),
            "scheme": "https" if self._secure else "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "headers": headers,
            "client": tuple(peer[:2]) if isinstance(peer, tuple) else None,
            ABORT: partial(abort, self._stream),
            HANG_UP: self._hang_up,
            **({} if self._secure else {SEND_NOW: self.send_now}),
        }

    async def _linger(self) -> None:
        """The client is still sending: read on for a moment. Closing now could lose the answer it has not read."""
        with trio.move_on_after(LINGER_S), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_eof()
            while await receive(self._stream):
                pass

    async def _disconnect(self) -> Message:
        """Return when the client has left. Bytes that arrive meanwhile belong to the next request."""
        while len(self._next_request) < HEAD_LIMIT:
            if not (data := await receive(self._stream)):
                return {"type": "http.disconnect"}
            self._next_request += data
        while not hung_up(self._stream.socket):  # noqa: ASYNC110 -- reading is paused, so EOF shows only in poll()
            await trio.sleep(HANG_UP_S)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send the head or a chunk of the answer. Ignores a departed client."""
        data = self._encoded(message)
        if message["type"] != "http.response.start":
            await self._write_data(data)

    def send_now(self, chunk: bytes) -> bool:
        """Send a chunk of the answer as far as the kernel takes it; the rest goes with the next message."""
        data = self._encoded({"type": "http.response.body", "body": chunk, "more_body": True})
        self._unsent = self._send_now(self._unsent + data if self._unsent else data)
        return not self._unsent

    async def _write_data(self, data: bytes) -> None:
        """Send within SEND_LIMIT_S seconds, or drop the client."""
        # the send is shielded: a task that only writes would never see a cancel
        await trio.lowlevel.checkpoint_if_cancelled()
        data, self._unsent = self._unsent + data, b""
        data = self._send_now(data)
        if not data:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        try:
            with trio.fail_after(SEND_LIMIT_S) as scope:
                scope.shield = True  # half a chunk on the wire would be worse than a late cancel
                await self._stream.send_all(data)
        except trio.TooSlowError:
            self._hang_up.happen()
            await trio.aclose_forcefully(self._stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()  # let other tasks run even if the application writes in a loop

    def _send_now(self, data: bytes) -> bytes:
        """Send what the kernel accepts without waiting, nearly always everything. Return the rest.

        A cancel scope and trio's own send would cost twice as much as the system call. TLS data is returned unsent.
        """
        if self._secure:
            return data
        try:
            return data[os.write(self._stream.socket.fileno(), data) :]
        except OSError:
            return data
