"""Connections that are kept between two exchanges, so that the next one need not connect.

Owns what is idle and nothing else: a connection in use belongs to its exchange. It does nothing by itself; what is too
old is closed when the next one is taken or kept. Servers close idle connections, too: LIMIT_S is less than our own
daemons wait, and where a server says how long it waits (`Keep-Alive: timeout=5`, as llama-server does), that counts.
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


class KeptConnections:
    """At most `limit` idle connections an origin, none of them for longer than `limit_s` seconds; all are closed at the
    end. An exchange that is still under way then closes its own."""

    def __init__(self, limit: int = LIMIT, limit_s: float = LIMIT_S) -> None:
        self._limit = limit
        self._limit_s = limit_s
        self._idle: dict[Origin, deque[_Idle]] = {}
        self._closed = False
        self._sweep_at = 0.0

    @property
    def idle(self) -> int:
        """How many connections are kept now."""
        return sum(map(len, self._idle.values()))

    def take(self, origin: Origin) -> Wire | None:
        """A connection to `origin` that is now the caller's: the one used last, for it will live longest."""
        self._close_expired()
        idle = self._idle.get(origin, deque())
        while idle:
            stream, until = idle.pop()
            # readable: the other side has closed it, or says what nobody has asked for
            if until > trio.current_time() and not stream.socket.is_readable():
                return stream
            _close(stream)
        return None

    def keep(self, origin: Origin, stream: Wire, limit_s: float = LIMIT_S) -> None:
        """Own `stream`, over which an exchange has come to its full end, for `limit_s` seconds at most."""
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
        """Close what is idle, and keep nothing more."""
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
            return  # with a thousand origins each look costs more than an exchange
        self._sweep_at = now + SWEEP_S
        for origin, idle in tuple(self._idle.items()):
            while idle and idle[0].until <= now:
                _close(idle.popleft().stream)
            if not idle:
                del self._idle[origin]


def _close(stream: Wire) -> None:
    """At once, and without a checkpoint: what is idle has nothing under way."""
    stream.socket.close()
