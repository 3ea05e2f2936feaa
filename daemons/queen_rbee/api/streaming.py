"""Timing and headers that all streamed responses share."""

import trio

from llama_orch.http.server.exchange import Exchange

KEEP_ALIVE_S = 15.0

COALESCE_S = 0.004
"""Tokens that arrive within this time are sent in one write; the first token never waits. The delay is not noticeable,
and a fast engine's stream costs a third as much CPU time."""

KEEP_ALIVE = b": keep-alive\n\n"

TOUCH_INTERVAL_S = 1.0
"""How often a queued task with a reader is marked as used: the drop-lru policy evicts the least recently used."""

STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store"),
    ("x-accel-buffering", "no"),
)


async def cancel_when_gone(exchange: Exchange, scope: trio.CancelScope) -> None:
    """Cancel `scope` when the client disconnects. Run it beside the code that sends the response."""
    await exchange.gone()
    scope.cancel()
