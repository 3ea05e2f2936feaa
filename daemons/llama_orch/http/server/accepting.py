"""The accept loop of a listening socket."""

import errno
import logging
import socket
from collections.abc import Callable

import trio

from llama_orch.service.watchdog import UNWATCHED_INTERVAL_S, Pulse
from llama_orch.telemetry.log_limit import LogLimit

ACCEPT_PAUSE_S = 0.1
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

log = logging.getLogger(__name__)


class ListenerEnded(Exception):
    """An accept loop ended without a shutdown."""


class Listener:
    """Owns a listening socket and runs its accept loop."""

    def __init__(self, sock: socket.socket, pulse: Pulse) -> None:
        sock.setblocking(False)
        self._inner = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._pulse = pulse
        self._log_limit = LogLimit()

    async def accept_all(
        self, handle: Callable[[trio.SocketStream], None], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Call `handle` with each client as soon as it is accepted, until cancelled. Raises OSError."""
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
                if self._log_limit.due("resources"):
                    log.error("cannot accept connections: %s; retrying", error.strerror)
                await trio.sleep(ACCEPT_PAUSE_S)


def unwatched(name: str) -> Pulse:
    """Return a pulse without a watchdog."""
    return Pulse(name, UNWATCHED_INTERVAL_S)
