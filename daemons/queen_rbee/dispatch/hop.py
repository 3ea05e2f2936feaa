"""What a request needs on its way through a node's relay: token, session header, kept connections, TLS."""

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


@dataclass(frozen=True)
class Hop:
    """How to reach engines behind nodes. Engines that queen-rbee reaches directly get no token and no session."""

    token: Secret | None = None
    connections: IdleConnections | None = None
    contexts: CurrentTls = NO_TLS

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The context for a new connection to a node."""
        return self.contexts.client

    async def aclose(self) -> None:
        """Close idle connections."""
        if self.connections:
            with trio.CancelScope(shield=True):
                await self.connections.aclose()

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
