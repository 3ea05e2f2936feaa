"""Serving ASGI by hypercorn on trio, with all that had to be worked around, each with its reason.

- `hypercorn.trio.serve()` listens again on inherited sockets with its own backlog, handles no signals, and wants
  the ASGI lifespan. Its connection handler is all that is needed: `TCPServer`, under a loop of our own.
- `TCPServer.protocol_send` shields `send_all` without a limit, so that one stalled reader hangs the shutdown for
  ever: here a send has a limit, and what is still open when the drain limit has passed is closed.
- Before it closes a connection hypercorn tells the application `http.disconnect`. Quart ends the request by that,
  and so cancels the very task that was about to close: after `Connection: close` and HTTP/1.0 the connection stayed
  open. And where the application has not read the request's body, the message finds its queue full and waits for
  ever. `Finisher` shields the last send and empties the queue beside it.
- A client that closes its connection between two requests is waited for, as one that is silent, until the keep-alive
  timeout: each such client kept a socket for a minute. `BoundedServer.run` ends that wait.
- While a request waits for the one ahead of it to be answered, nothing is read, and a client that left was waited for
  for ever. `Turn` looks whether it has.
- `hypercorn.trio.TaskGroup.__aexit__` drops the verdict of its nursery, so that the cancellation of one connection left
  it as a `trio.Cancelled` that belongs to nobody. `BoundedServer` opens the nursery itself.
- Whatever leaves one connection would end `serve`, and with it the daemon: `Connections.handle` logs it and goes on.
- A request with `Upgrade: websocket` became an ASGI scope of its own, which nothing here serves, and methods were put
  in upper case: `Http1` passes every request on as it came, and the gate judges its head.
- At the stop hypercorn closes at once what has not yet spoken, also a client that was accepted a moment ago, and by a
  race (its idle task is cancelled, but shields itself) one whose request is being answered: such a client sees its
  connection end without an answer. `BoundedServer._idle_timeout` waits for the first and gives way to the second.
- HTTP/2 without TLS is taken up unasked, and there a method that is not ASCII raises such an exception; its flow
  control also waits without a limit. Nobody here needs it: `Http1` declines it.
"""

import logging
import math
import socket
import ssl
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

from llama_orch.http.server.accepting import Listener, ListenerEnded, unwatched
from llama_orch.http.server.exchange import ABORT, AsgiApp, BrokenOff, Message, Receive, Scope, Send
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.handshakes import Handshakes
from llama_orch.http.server.hot_server import (
    CHUNK,
    HANG_UP_S,
    LINGER_S,
    NEWCOMER_S,
    HotConnection,
    Resumed,
    malformed,
    malformed_fields,
)
from llama_orch.http.tls.secured import Wire, abort, hung_up
from llama_orch.service.watchdog import Pulse

SEND_LIMIT_S = 30.0

log = logging.getLogger(__name__)


class Finisher:
    """The application as hypercorn calls it for requests over `wire`, with what ends an exchange protected."""

    def __init__(self, app: AsgiApp, wire: Wire) -> None:
        self._app = app
        self._abort = partial(abort, wire)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *_threads: object) -> None:
        """Run the application for one request; its end also ends the exchange."""

        async def sending(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            await (_finish(receive, send, message) if last else _whole(send, message))

        try:
            with suppress(BrokenOff):  # an answer that has no end closes the connection
                await self._app({**scope, ABORT: self._abort}, receive, sending)
        finally:
            await _finish(receive, send, None)


async def _whole(send: Send, message: Message) -> None:
    """Send all of a message or nothing: a cancel in its midst would leave hypercorn in doubt about what was sent."""
    await trio.lowlevel.checkpoint_if_cancelled()
    with trio.CancelScope(shield=True):
        await send(message)


async def _finish(receive: Receive, send: Send, message: Message | None) -> None:
    """Send what ends the exchange; None is hypercorn's own sign of an application that has returned."""
    with trio.move_on_after(SEND_LIMIT_S, shield=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_discard, receive)
            await send(message)  # type: ignore[arg-type]
            nursery.cancel_scope.cancel()


async def _discard(receive: Receive) -> None:
    while True:
        await receive()


class Http1(H11Protocol):
    """HTTP/1.1 and nothing else."""

    async def _check_protocol(self, _event: h11.Request) -> None:
        """Decline to change over to HTTP/2."""

    async def _create_stream(self, request: h11.Request) -> None:
        """Hand a request to the application as it came, whatever its method and its Upgrade header."""
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
        """Answer what is no HTTP."""
        body = malformed(status_code)
        await self._send_h11_event(h11.Response(status_code=status_code, headers=malformed_fields(body)))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class Turn(EventWrapper):
    """The turn of a request that came before the one ahead of it was answered: it is `lost` where the client leaves."""

    def __init__(self, sock: trio.socket.SocketType, lost: Callable[[], None]) -> None:
        super().__init__()
        self._sock = sock
        self._lost = lost

    async def wait(self) -> None:
        """Return when it has come."""
        while not self.is_set():
            with trio.move_on_after(HANG_UP_S):
                await super().wait()
            if hung_up(self._sock):
                self._lost()


class BoundedServer(TCPServer):
    """One connection; a client that reads nothing for SEND_LIMIT_S seconds is dropped."""

    def __init__(self, app: Finisher, config: Config, context: WorkerContext, stream: Resumed) -> None:
        super().__init__(app, config, context, ConnectionState({}), stream)  # type: ignore[arg-type]
        self._left = False
        """Whether the client has said all it will."""
        self._reading = trio.CancelScope()
        """Around the reading; it has a deadline once the server has said all it will."""

    async def run(self) -> None:
        """Serve the connection to its end: hypercorn's own `run` without HTTP/2, and behind the handshake."""
        try:
            sock = self.stream.socket
            client, server = (parse_socket_addr(sock.family, name) for name in (sock.getpeername(), sock.getsockname()))
            async with trio.open_nursery() as nursery:
                self._task_group = group = TaskGroup()
                group._nursery = nursery
                tls = self.stream.secure
                parts = self.app, self.config, self.context, group, ConnectionState({}), tls, client, server
                protocol = Http1(*parts, self.protocol_send)
                protocol.can_read = Turn(sock, nursery.cancel_scope.cancel)
                self.protocol = protocol  # type: ignore[assignment]
                await self.idle_task.restart(self._task_group, self._idle_timeout)
                await self._read_data()
                self._left = True
                await self.idle_task.stop()
        except OSError:
            return  # the client left before anything was said
        finally:
            await self._close()

    async def _read_data(self) -> None:
        """Hand what comes to the protocol until the client has said all it will. After the server's last word, read on
        for a moment: closing at once would reset the connection and take back an answer not yet read."""
        with self._reading, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self.stream.receive_some(CHUNK):
                if self._reading.deadline == math.inf:
                    await self.protocol.handle(RawData(bytes(data)))
        await self.protocol.handle(Closed())

    async def _idle_timeout(self) -> None:
        """Close when nothing comes: at once at the stop, but not on a client whose first request is on its way."""
        if self._left:
            return
        with trio.move_on_after(self.config.keep_alive_timeout):
            await self.context.terminated.wait()
        if not self.protocol.keep_alive_requests:  # type: ignore[attr-defined]
            await trio.sleep(NEWCOMER_S)
        await trio.lowlevel.checkpoint()  # a request that came in this very moment has cancelled this task
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()

    async def protocol_send(self, event: Event) -> None:
        """Send, or drop the client; begin to close; anything else is left to hypercorn."""
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


class Connections:
    """The streams that are open, so that a stop can end them; owned by one `serve`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._open: set[trio.SocketStream] = set()
        self._idle: dict[trio.CancelScope, bool] = {}
        self._none_left = trio.Event()
        self._stopping = False
        self._handshakes = Handshakes(tls, self._idle, lambda: self._stopping) if tls else None

    def accepted(self, stream: trio.SocketStream) -> None:
        """The stream counts as open from now on: its handler has its first turn later."""
        self._open.add(stream)

    async def handle(self, app: AsgiApp, config: Config, context: WorkerContext, stream: trio.SocketStream) -> None:
        """Serve one connection to its end; what goes wrong in it is logged and concerns no other."""
        try:
            wire = await self._handshakes.secured(stream) if self._handshakes else stream
            if wire is not None:
                await self._serve(app, config, context, wire)
        except BaseException as error:
            if not _contained(error):
                raise
            log.exception("a connection failed by an error of the daemon's own")
        finally:
            await trio.aclose_forcefully(stream)
            self._open.discard(stream)
            if not self._open:
                self._none_left.set()

    async def _serve(self, app: AsgiApp, config: Config, context: WorkerContext, wire: Wire) -> None:
        seen: bytes | None = b""
        if isinstance(app, Gate):
            seen = await HotConnection(wire, app, app.is_hot, self._idle).serve(lambda: self._stopping)
        if seen is not None:
            resumed = Resumed(wire, seen)
            await BoundedServer(Finisher(app, wire), config, context, resumed)

    def end_idle(self) -> None:
        """Serve no further request on any connection; those that wait for one end now, or soon if it is the first."""
        self._stopping = True
        for scope, first in self._idle.items():
            scope.deadline = min(scope.deadline, trio.current_time() + (NEWCOMER_S if first else 0.0))

    async def all_closed(self) -> None:
        """Return when no connection is open. For use once nothing new is accepted."""
        if self._open:
            self._none_left = trio.Event()
            await self._none_left.wait()

    async def close_all(self) -> None:
        """Close what is still open; sends under way fail and their handlers end."""
        with trio.CancelScope(shield=True):
            for stream in tuple(self._open):
                await trio.aclose_forcefully(stream)


def _contained(error: BaseException) -> bool:
    """Return whether `error` concerns one connection only: any exception, or a cancellation not of the server."""
    if isinstance(error, BaseExceptionGroup):
        return all(_contained(inner) for inner in error.exceptions)
    cancelled = isinstance(error, trio.Cancelled) and trio.current_effective_deadline() != -math.inf
    return cancelled or isinstance(error, Exception)


def hypercorn_config() -> Config:
    """Hypercorn's settings: no access log, its errors in ours, bounded heads and bodies, keep-alive for a minute."""
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.keep_alive_timeout = 60
    config.h11_max_incomplete_size = 32 * 1024
    config.include_server_header = False
    return config


async def serve(
    app: AsgiApp,
    sockets: list[socket.socket],
    *,
    shutdown: trio.Event,
    drain_s: float,
    tls: ssl.SSLContext | None = None,
    pulse: Callable[[str], Pulse] = unwatched,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on listening `sockets`, which it owns from now on, until `shutdown` is set; over TLS where `tls` says
    how. Each accept loop beats a pulse made by `pulse`.

    Then nothing new is accepted, idle connections close, and what runs has `drain_s` seconds to end. Raises OSError
    where a socket fails, ListenerEnded where accepting ends for any other reason.
    """
    config, context, connections = hypercorn_config(), WorkerContext(None), Connections(tls)
    listeners = [Listener(sock, pulse(f"listener {sock.getsockname()}")) for sock in sockets]
    async with trio.open_nursery() as handlers:

        def handle(stream: trio.SocketStream) -> None:
            connections.accepted(stream)
            handlers.start_soon(connections.handle, app, config, context, stream)

        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    await accepting.start(listener.accept_all, handle)
                task_status.started()
                await shutdown.wait()
                accepting.cancel_scope.cancel()
            connections.end_idle()
            await context.terminated.set()
            with trio.move_on_after(drain_s):
                await connections.all_closed()
        finally:  # when cancelled, too: the shielded sends would hold that up
            await connections.close_all()
        handlers.cancel_scope.cancel()
    if not shutdown.is_set():
        raise ListenerEnded("a listener ended without being asked to stop")
