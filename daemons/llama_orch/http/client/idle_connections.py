"""Idle connections, kept for reuse by the next exchange.

Owns idle connections only: a connection in use belongs to its exchange. There is no background task; expired
connections are closed when another one is taken or kept. Servers close idle connections too: LIMIT_S is below the limit
of our own daemons, and a server's `Keep-Alive: timeout=5`, as llama-server sends it, takes precedence.
"""

from collections import deque
from typing import NamedTuple, Self

import trio

from llama_orch.http.client.connecting import Origin
from llama_orch.http.tls.secured import Wire

LIMIT_S = 30.0
LIMIT = 32
SWEEP_S = 1.0


class _Idle(NamedTuple):
    stream: Wire
    until: float


class IdleConnections:
    """At most `limit` idle connections per origin, each for at most `limit_s` seconds.

    Leaving the context closes them. An exchange that is still running then closes its own connection.
    """

    def __init__(self, limit: int = LIMIT, limit_s: float = LIMIT_S) -> None:
        self._limit = limit
        self._limit_s = limit_s
        self._idle: dict[Origin, deque[_Idle]] = {}
        self._closed = False
        self._sweep_at = 0.0

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return sum(map(len, self._idle.values()))

    def take(self, origin: Origin) -> Wire | None:
        """Return a connection to `origin`, which the caller then owns: the one used last, since it expires last."""
        self._close_expired()
        idle = self._idle.get(origin, deque())
        while idle:
            stream, until = idle.pop()
            # readable: the server has closed it or has sent unsolicited data
            if until > trio.current_time() and not stream.socket.is_readable():
                return stream
            _close(stream)
        return None

    def keep(self, origin: Origin, stream: Wire, limit_s: float = LIMIT_S) -> None:
        """Take over `stream`, whose exchange is complete, for at most `limit_s` seconds."""
        self._close_expired()
        until = trio.current_time() + min(limit_s, self._limit_s)
        if self._closed or until <= trio.current_time():
            _close(stream)
            return
        idle = self._idle.setdefault(origin, deque())
        idle.append(_Idle(stream, until))
        if len(idle) > self._limit:
            _close(idle.popleft().stream)

    async def aclose(self) -> None:
        """Close the idle connections and accept no more."""
        self._closed = True
        for idle in self._idle.values():
            for each in idle:
                _close(each.stream)
        self._idle.clear()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _close_expired(self) -> None:
        now = trio.current_time()
        if now < self._sweep_at:
            return  # with a thousand origins a sweep costs more than an exchange
        self._sweep_at = now + SWEEP_S
        for origin, idle in tuple(self._idle.items()):
            while idle and idle[0].until <= now:
                _close(idle.popleft().stream)
            if not idle:
                del self._idle[origin]


def _close(stream: Wire) -> None:
    """Close at once, without a checkpoint: nothing is being sent on an idle connection."""
    stream.socket.close()
