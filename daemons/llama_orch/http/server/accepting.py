"""Accepting connections: a listening socket, and the loop that the watchdog watches."""

import errno
import logging
import socket
from collections.abc import Callable

import trio

from llama_orch.service.watchdog import UNWATCHED_INTERVAL_S, Pulse
from llama_orch.telemetry.sparing import Sparing

ACCEPT_PAUSE_S = 0.1
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

log = logging.getLogger(__name__)


class ListenerEnded(Exception):
    """A listener accepts no more, though no stop was asked for."""


class Listener:
    """A listening socket, which it owns, and its accept loop."""

    def __init__(self, sock: socket.socket, pulse: Pulse) -> None:
        sock.setblocking(False)
        self._inner = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._pulse = pulse
        self._told = Sparing()

    async def accept_all(
        self, handle: Callable[[trio.SocketStream], None], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Call `handle` with each client, in the moment in which it is accepted, until cancelled. Raises OSError."""
        try:
            async with self._inner:
                task_status.started()
                while True:
                    self._pulse.beat()
                    with trio.move_on_after(self._pulse.interval_s):
                        handle(await self._accept())
        finally:
            self._pulse.retire()

    async def _accept(self) -> trio.SocketStream:
        while True:
            try:
                return await self._inner.accept()
            except OSError as error:
                if error.errno not in OUT_OF_RESOURCES:
                    raise
                if self._told.due("resources"):
                    log.error("cannot accept a connection: %s; trying on", error.strerror)
                await trio.sleep(ACCEPT_PAUSE_S)


def unwatched(name: str) -> Pulse:
    """A pulse that no watchdog looks at."""
    return Pulse(name, UNWATCHED_INTERVAL_S)
