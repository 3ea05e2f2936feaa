"""Serve an ASGI application on listening sockets.

`hypercorn.trio.serve()` listens again on inherited sockets with its own backlog, handles no signals, needs the ASGI
lifespan, and ends when one connection raises. Only its connection handler is used (`http1.py`), under the accept loops
here; `Connections.handle` logs what a connection raises.
"""

import logging
import math
import socket
from collections.abc import Callable

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from llama_orch.http.server.accepting import Listener, ListenerEnded, unwatched
from llama_orch.http.server.exchange import AsgiApp
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.handshakes import Handshakes
from llama_orch.http.server.hang_ups import HangUps
from llama_orch.http.server.hot_server import NEWCOMER_S, HotConnection, Resumed
from llama_orch.http.server.http1 import BoundedServer, ShieldedApp
from llama_orch.http.server.overload import Refusals, connection_limit
from llama_orch.http.tls.current import NO_TLS, CurrentTls
from llama_orch.http.tls.secured import Wire
from llama_orch.service.watchdog import Pulse

KEEP_ALIVE_S = 60
HEAD_LIMIT = 32 * 1024

log = logging.getLogger(__name__)


class Connections:
    """The open connections of one `serve`, which closes them at shutdown."""

    def __init__(self, tls: CurrentTls = NO_TLS, limit: int | None = None) -> None:
        self._limit = connection_limit() if limit is None else limit
        self._open: set[trio.SocketStream] = set()
        self._idle: dict[trio.CancelScope, bool] = {}
        self._none_left = trio.Event()
        self._stopping = False
        self._handshakes = Handshakes(lambda: tls.server, self._idle, lambda: self._stopping) if tls.server else None
        self.hang_ups = HangUps()

    @property
    def full(self) -> bool:
        """Whether as many connections are open as may be."""
        return len(self._open) >= self._limit

    def refusals(self, name: str) -> Refusals:
        """Return what refuses clients of the listener `name` while `full`."""
        return Refusals(name, self._limit, self._secured)

    def add(self, stream: trio.SocketStream) -> None:
        """Count `stream` as open from now on; its handler starts later."""
        self._open.add(stream)

    async def handle(self, app: AsgiApp, config: Config, context: WorkerContext, stream: trio.SocketStream) -> None:
        """Serve one connection to its end. Its errors are logged and affect no other connection."""
        try:
            wire = await self._secured(stream)
            if wire is not None:
                await self._serve(app, config, context, wire)
        except BaseException as error:
            if not _contained(error):
                raise
            log.exception("internal error: a connection was dropped")
        finally:
            await trio.aclose_forcefully(stream)
            self._open.discard(stream)
            if not self._open:
                self._none_left.set()

    async def _secured(self, stream: trio.SocketStream) -> Wire | None:
        return await self._handshakes.secured(stream) if self._handshakes else stream

    async def _serve(self, app: AsgiApp, config: Config, context: WorkerContext, wire: Wire) -> None:
        received: bytes | None = b""
        if isinstance(app, Gate):
            number, hang_up = wire.socket.fileno(), self.hang_ups.watch(wire.socket)
            try:
                connection = HotConnection(wire, app, app.is_hot, self._idle, hang_up)
                received = await connection.serve(lambda: self._stopping)
            finally:
                self.hang_ups.unwatch(hang_up, number)
        if received is not None:
            resumed = Resumed(wire, received)
            await BoundedServer(ShieldedApp(app, wire), config, context, resumed)

    def end_idle(self) -> None:
        """Accept no further request on any connection. Idle ones end now, or after NEWCOMER_S without a first one."""
        self._stopping = True
        for scope, first in self._idle.items():
            scope.deadline = min(scope.deadline, trio.current_time() + (NEWCOMER_S if first else 0.0))

    async def all_closed(self) -> None:
        """Return when no connection is open. Call it only when no more are accepted."""
        if self._open:
            self._none_left = trio.Event()
            await self._none_left.wait()

    async def close_all(self) -> None:
        """Close the open connections; pending sends fail and their handlers end."""
        with trio.CancelScope(shield=True):
            for stream in tuple(self._open):
                await trio.aclose_forcefully(stream)


def _contained(error: BaseException) -> bool:
    """Return whether `error` affects one connection only: any exception, or a cancellation other than the server's."""
    if isinstance(error, BaseExceptionGroup):
        return all(_contained(inner) for inner in error.exceptions)
    cancelled = isinstance(error, trio.Cancelled) and trio.current_effective_deadline() != -math.inf
    return cancelled or isinstance(error, Exception)


def hypercorn_config() -> Config:
    """Return hypercorn's settings: no access log, errors in our log, limited heads, keep-alive for a minute."""
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.h11_max_incomplete_size = HEAD_LIMIT
    config.include_server_header = False
    return config


async def serve(
    app: AsgiApp,
    sockets: list[socket.socket],
    *,
    shutdown: trio.Event,
    drain_s: float,
    tls: CurrentTls = NO_TLS,
    limit: int | None = None,
    pulse: Callable[[str], Pulse] = unwatched,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on listening `sockets`, which it owns, until `shutdown` is set; over TLS if `tls` has a certificate.

    At most `limit` connections are open at a time, by default `connection_limit()`; further clients get 503. Each
    accept loop beats a pulse made by `pulse`. After `shutdown` no more connections are accepted, idle ones close,
    and running requests have `drain_s` seconds to end. Raises OSError if a socket fails, and ListenerEnded if an accept
    loop ends without `shutdown`.
    """
    config, context, connections = hypercorn_config(), WorkerContext(None), Connections(tls, limit)
    refusals = connections.refusals(str(sockets[0].getsockname()))
    listeners = [Listener(sock, pulse(f"listener {sock.getsockname()}")) for sock in sockets]
    async with trio.open_nursery() as handlers:
        handlers.start_soon(connections.hang_ups.run)

        def handle(stream: trio.SocketStream) -> None:
            if connections.full:
                handlers.start_soon(refusals.refuse, stream)
                return
            connections.add(stream)
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
        finally:  # also when cancelled: the shielded sends would delay that
            await connections.close_all()
        handlers.cancel_scope.cancel()
    if not shutdown.is_set():
        raise ListenerEnded("a listener ended without being asked to stop")
