"""Serving ASGI by hypercorn on trio, with all that had to be worked around, each with its reason.

- `hypercorn.trio.serve()` listens again on inherited sockets with its own backlog, handles no signals, and wants
  the ASGI lifespan. Its connection handler is all that is needed: `TCPServer`, under a loop of our own.
- `TCPServer.protocol_send` shields `send_all` without a limit, so that one stalled reader hangs the shutdown for
  ever: here a send has a limit, and what is still open when the drain limit has passed is closed.
"""

import logging
import socket
from functools import partial

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from llama_orch.http.exchange import AsgiApp

SEND_LIMIT_S = 30.0


class BoundedServer(TCPServer):
    """One connection; a client that reads nothing for SEND_LIMIT_S seconds is dropped."""

    async def protocol_send(self, event: Event) -> None:
        """Send, or drop the client; anything but data is left to hypercorn."""
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

    def __init__(self) -> None:
        self._open: set[trio.SocketStream] = set()
        self._none_left = trio.Event()

    async def handle(self, app: AsgiApp, config: Config, context: WorkerContext, stream: trio.SocketStream) -> None:
        """Serve one connection to its end."""
        self._open.add(stream)
        try:
            await BoundedServer(
                ASGIWrapper(app),  # type: ignore[arg-type]
                config,
                context,
                ConnectionState({}),
                stream,  # type: ignore[arg-type]
            )
        finally:
            self._open.discard(stream)
            if not self._open:
                self._none_left.set()

    async def all_closed(self) -> None:
        """Return when no connection is open. For use once nothing new is accepted."""
        if self._open:
            self._none_left = trio.Event()
            await self._none_left.wait()

    async def close_all(self) -> None:
        """Close what is still open; sends under way fail and their handlers end."""
        for stream in tuple(self._open):
            await trio.aclose_forcefully(stream)


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
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on listening `sockets`, which it owns from now on, until `shutdown` is set.

    Then nothing new is accepted, idle connections close, and what runs has `drain_s` seconds to end.
    """
    config, context, connections = hypercorn_config(), WorkerContext(None), Connections()
    handle = partial(connections.handle, app, config, context)
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(_listening(sock))) for sock in sockets]
    async with trio.open_nursery() as handlers:
        async with trio.open_nursery() as accepting:
            await accepting.start(partial(trio.serve_listeners, handle, listeners, handler_nursery=handlers))
            task_status.started()
            await shutdown.wait()
            accepting.cancel_scope.cancel()
        await context.terminated.set()
        with trio.move_on_after(drain_s):
            await connections.all_closed()
        await connections.close_all()
        handlers.cancel_scope.cancel()


def _listening(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock
