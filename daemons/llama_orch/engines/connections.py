"""Idle connections to engines, as queen-rbee and pool-managerd keep them."""

from llama_orch.http.client.idle_connections import IdleConnections

ENGINE_IDLE_S = 1.0
"""How long a connection to an engine is kept for the next request. llama-server has a thread for each connection, a few
more than slots, and needs one of them for health checks."""
ENGINE_IDLE_LIMIT = 256
"""As many as an engine may have slots."""


def engine_connections() -> IdleConnections:
    """Return a new keeper of connections to engines."""
    return IdleConnections(ENGINE_IDLE_LIMIT, ENGINE_IDLE_S)
