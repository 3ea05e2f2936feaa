"""One HTTP/1.1 connection as hypercorn serves it, with workarounds for hypercorn 0.18 and quart-trio 0.12.

- `TCPServer.protocol_send` shields `send_all` without a limit, so one stalled reader delays a shutdown for ever. Here a
  send is limited to SEND_LIMIT_S.
- Before hypercorn closes a connection it sends the application `http.disconnect`. Quart then cancels the request, and
  with it the very task that was about to close: after `Connection: close` and HTTP/1.0 the connection stayed open. If
  the application has not read the request's body, the message finds its queue full and waits for ever. `ShieldedApp`
  shields the last send and empties the queue beside it.
- hypercorn treats a client that closes its connection between two requests as idle until the keep-alive timeout, so
  each such client kept a socket for a minute. `BoundedServer.run` ends that wait.
- Nothing is read while a pipelined request waits for the answer to the previous one, so hypercorn does not notice that
  its client has left. `PipelineWait` checks for that.
- `hypercorn.trio.TaskGroup.__aexit__` ignores the return value of its nursery, so a cancelled connection raised a
  `trio.Cancelled` outside of any scope. `BoundedServer` opens the nursery itself.
- hypercorn makes a request with `Upgrade: websocket` an ASGI scope of its own, which nothing here serves, and turns
  methods into upper case. `Http1` passes every request on unchanged, and the gate checks its head.
- At shutdown hypercorn closes connections without a request at once, also those accepted a moment ago. Through a race
  (its idle task is cancelled, but shields itself) it also closes some whose request is being answered. Either client
  gets no answer. `BoundedServer._idle_timeout` waits for the former and yields to the latter.
- HTTP/2 without TLS is accepted unasked. Its flow control waits without a limit, and a method that is not ASCII raises.
  Nothing here needs it, so `Http1` declines it.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from llama_orch.http.server.exchange import ABORT, AsgiApp, BrokenOff, Message, Receive, Scope, Send
from llama_orch.http.server.h11_exchange import malformed, malformed_fields
from llama_orch.http.server.hot_exchange import CHUNK, HANG_UP_S, LINGER_S, SEND_LIMIT_S
from llama_orch.http.server.hot_server import NEWCOMER_S, Resumed
from llama_orch.http.tls.secured import Wire, abort, hung_up


class ShieldedApp:
    """The application as hypercorn calls it for requests over `wire`; shields the sends that end an exchange."""

    def __init__(self, app: AsgiApp, wire: Wire) -> None:
        self._app = app
        self._abort = partial(abort, wire)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *_threads: object) -> None:
        """Run the application for one request; its return also ends the exchange."""

        async def sending(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            await (_finish(receive, send, message) if last else _send_uncancelled(send, message))

        try:
            with suppress(BrokenOff):  # the answer is incomplete, so hypercorn closes the connection
                await self._app({**scope, ABORT: self._abort}, receive, sending)
        finally:
            await _finish(receive, send, None)


async def _send_uncancelled(send: Send, message: Message) -> None:
    """Send all of a message or nothing: after a cancel halfway hypercorn would not know what was sent."""
    await trio.lowlevel.checkpoint_if_cancelled()
    with trio.CancelScope(shield=True):
        await send(message)


async def _finish(receive: Receive, send: Send, message: Message | None) -> None:
    """Send what ends the exchange. None is how hypercorn's own wrapper reports that the application has returned."""
    with trio.move_on_after(SEND_LIMIT_S, shield=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_discard, receive)
            await send(message)  # type: ignore[arg-type]
            nursery.cancel_scope.cancel()


async def _discard(receive: Receive) -> None:
    while True:
        await receive()


class Http1(H11Protocol):
    """HTTP/1.1 without upgrades."""

    async def _check_protocol(self, _event: h11.Request) -> None:
        """Do not switch to HTTP/2."""

    async def _create_stream(self, request: h11.Request) -> None:
        """Pass a request to the application unchanged, whatever its method and its Upgrade header."""
        parts = self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server
        self.stream = HTTPStream(*parts, self.stream_send, STREAM_ID)
        head = Request(
            STREAM_ID,
            [*request.headers],
            request.http_version.decode(),
            request.method.decode(),
            request.target,
            self.connection_state,
        )
        await self.stream.handle(head)
        self.keep_alive_requests += 1

    async def _send_error_response(self, status_code: int) -> None:
        body = malformed(status_code)
        await self._send_h11_event(h11.Response(status_code=status_code, headers=malformed_fields(body)))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class PipelineWait(EventWrapper):
    """Makes a pipelined request wait for the answer to the previous one; calls `hang_up` if the client leaves."""

    def __init__(self, sock: trio.socket.SocketType, hang_up: Callable[[], None]) -> None:
        super().__init__()
        self._sock = sock
        self._hang_up = hang_up

    async def wait(self) -> None:
        while not self.is_set():
            with trio.move_on_after(HANG_UP_S):
                await super().wait()
            if hung_up(self._sock):
                self._hang_up()


class BoundedServer(TCPServer):
    """One connection. A client that reads nothing for SEND_LIMIT_S seconds is dropped."""

    def __init__(self, app: ShieldedApp, config: Config, context: WorkerContext, stream: Resumed) -> None:
        super().__init__(app, config, context, ConnectionState({}), stream)  # type: ignore[arg-type]
        self._client_closed = False
        # around the reading; gets a deadline when the server has sent its last answer
        self._reading = trio.CancelScope()

    async def run(self) -> None:
        """Serve the connection to its end: hypercorn's own `run` without HTTP/2 and without the TLS handshake."""
        try:
            sock = self.stream.socket
            client, server = (parse_socket_addr(sock.family, name) for name in (sock.getpeername(), sock.getsockname()))
            async with trio.open_nursery() as nursery:
                self._task_group = group = TaskGroup()
                group._nursery = nursery
                tls = self.stream.secure
                parts = self.app, self.config, self.context, group, ConnectionState({}), tls, client, server
                protocol = Http1(*parts, self.protocol_send)
                protocol.can_read = PipelineWait(sock, nursery.cancel_scope.cancel)
                self.protocol = protocol  # type: ignore[assignment]
                await self.idle_task.restart(self._task_group, self._idle_timeout)
                await self._read_data()
                self._client_closed = True
                await self.idle_task.stop()
        except OSError:
            return  # the client left before it sent anything
        finally:
            await self._close()

    async def _read_data(self) -> None:
        """Pass received bytes to the protocol until the client closes.

        After the server's last answer, read on for a moment: closing at once would reset the connection, and the client
        could lose an answer that it has not read yet.
        """
        with self._reading, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self.stream.receive_some(CHUNK):
                if self._reading.deadline == math.inf:
                    await self.protocol.handle(RawData(bytes(data)))
        await self.protocol.handle(Closed())

    async def _idle_timeout(self) -> None:
        """Close an idle connection: at shutdown at once, unless its first request may be on its way."""
        if self._client_closed:
            return
        with trio.move_on_after(self.config.keep_alive_timeout):
            await self.context.terminated.wait()
        if not self.protocol.keep_alive_requests:  # type: ignore[attr-defined]
            await trio.sleep(NEWCOMER_S)
        await trio.lowlevel.checkpoint()  # a request that arrived just now has cancelled this task
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()

    async def protocol_send(self, event: Event) -> None:
        """Send data or drop the client, or start to close. Other events are hypercorn's."""
        if isinstance(event, Closed):
            async with self.send_lock:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.stream.send_eof()
            self._reading.deadline = trio.current_time() + LINGER_S
            await self.protocol.handle(event)
            return
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                with trio.fail_after(SEND_LIMIT_S) as scope:
                    scope.shield = True  # half a chunk on the wire would be worse than a late cancel
                    await self.stream.send_all(event.data)
            except trio.TooSlowError:
                await trio.aclose_forcefully(self.stream)
                await self.protocol.handle(Closed())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self.protocol.handle(Closed())
