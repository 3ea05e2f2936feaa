"""What a request needs on its way to an engine: kept connections; through a node also token, session header and TLS."""

import ssl
from dataclasses import dataclass
from hashlib import sha256

import trio

from llama_orch.contracts.nodes import SESSION_HEADER
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.http.client.idle_connections import IdleConnections
from llama_orch.http.tls.current import NO_TLS, CurrentTls
from llama_orch.settings.types import Secret
from queen_rbee.pools.candidates import Candidate

SESSION_DIGITS = 32
NODE_IDLE_LIMIT = 256
"""Idle connections to each node. With fewer than requests at once, some would need a new one each time, over TLS with a
handshake."""


def node_connections() -> IdleConnections:
    """Return a new keeper of connections to nodes."""
    return IdleConnections(NODE_IDLE_LIMIT)


@dataclass(frozen=True)
class Hop:
    """How to reach engines. Those that queen-rbee reaches directly get no token and no session.

    `connections` are those to nodes, `engines` those to engines; without them each request has its own.
    """

    token: Secret | None = None
    connections: IdleConnections | None = None
    contexts: CurrentTls = NO_TLS
    engines: IdleConnections | None = None

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The context for a new connection to a node."""
        return self.contexts.client

    async def aclose(self) -> None:
        """Close idle connections."""
        with trio.CancelScope(shield=True):
            for connections in (self.connections, self.engines):
                if connections:
                    await connections.aclose()

    def kept(self, target: Candidate) -> IdleConnections | None:
        """Return the connections among which one to `target` may be."""
        return self.connections if target.node_id else self.engines

    def headers(self, target: Candidate, request: TaskRequest) -> dict[str, str]:
        """Return the headers for the node's relay; none for an engine that is reached directly."""
        session = session_header(request) if target.node_id is not None else None
        return self.credentials(target) | ({SESSION_HEADER: session} if session else {})

    def credentials(self, target: Candidate) -> dict[str, str]:
        """Return the headers that authenticate at the node's relay; none for an engine that is reached directly."""
        token = target.node_id is not None and self.token
        return {"authorization": f"Bearer {token.get_secret_value()}"} if token else {}


DIRECT = Hop()


def session_header(request: TaskRequest) -> str | None:
    """Return a digest by which a node recognises the turns of a session without learning its id.

    None if the turn is not to be kept near its predecessor (`kv_hint` is `cold`).
    """
    if request.session_id is None or request.kv_hint == "cold":
        return None
    return sha256(request.session_id.bytes).hexdigest()[:SESSION_DIGITS]
