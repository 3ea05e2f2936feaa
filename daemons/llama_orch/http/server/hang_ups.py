"""Notice clients that leave while their request is answered, without a task for each of them.

One epoll instance watches all connections of a server for EPOLLRDHUP (epoll_ctl(2)): the peer has closed, or will send
nothing more. What it sends before that is not read, so a pipelined request stays in the kernel until its turn.
"""

import select
from collections.abc import Callable
from contextlib import suppress

import trio


class HangUp:
    """Whether one connection's client has left. Owned by its HangUps."""

    def __init__(self) -> None:
        self.happened = False
        self._react: Callable[[], None] | None = None

    def expect(self, react: Callable[[], None]) -> None:
        """Call `react` once when the client leaves: now, if it has. `forget` ends that."""
        self._react = react
        if self.happened:
            self.happen()

    def forget(self) -> None:
        self._react = None

    def happen(self) -> None:
        """The client has left, or this side gave it up."""
        self.happened = True
        react, self._react = self._react, None
        if react:
            react()


class HangUps:
    """The watched connections of a server. `run` must run meanwhile."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, HangUp] = {}

    def watch(self, socket: trio.socket.SocketType) -> HangUp:
        """Watch `socket`; call `unwatch` before it is closed."""
        hang_up = HangUp()
        number = socket.fileno()
        if number < 0:
            hang_up.happened = True
            return hang_up
        self._watched[number] = hang_up
        # edge-triggered: a client that leaves is reported once
        self._epoll.register(number, select.EPOLLRDHUP | select.EPOLLET)
        return hang_up

    def unwatch(self, hang_up: HangUp, number: int) -> None:
        """Stop to watch the connection whose descriptor is or was `number`."""
        if self._watched.get(number) is hang_up:
            del self._watched[number]
            with suppress(OSError):  # a closed socket has left the epoll instance already
                self._epoll.unregister(number)

    async def run(self) -> None:
        """Report clients that leave, until cancelled."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for number, _events in self._epoll.poll(0):
                    if hang_up := self._watched.get(number):
                        hang_up.happen()
        finally:
            self._epoll.close()
