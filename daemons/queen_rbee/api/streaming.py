"""Timing and headers that every streamed answer shares."""

import trio

from llama_orch.http.server.exchange import Exchange

KEEP_ALIVE_S = 15.0

COALESCE_S = 0.004
"""Tokens that come closer together are sent in one piece. The first one never waits; nobody sees the others do, and a
fast engine's stream costs a third."""

KEEP_ALIVE = b": keep-alive\n\n"

ATTEND_S = 1.0
"""A waiting task that somebody reads is attended so often: under drop-lru those that nobody asks for go first."""

STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store"),
    ("x-accel-buffering", "no"),
)


async def until_gone(exchange: Exchange, scope: trio.CancelScope) -> None:
    """Cancel `scope` when the client leaves; to be run beside the answer."""
    await exchange.gone()
    scope.cancel()
