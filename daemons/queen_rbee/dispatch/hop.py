"""The way through a node: what its relay is shown beside the request, and what the connections to it are made of."""

import ssl
from dataclasses import dataclass
from hashlib import sha256

import trio

from llama_orch.contracts.nodes import SESSION_HEADER
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.http.client.idle_connections import IdleConnections
from llama_orch.settings.types import Secret
from queen_rbee.pools.candidates import Candidate

MARK_DIGITS = 32


@dataclass(frozen=True)
class Hop:
    """What the way through a node needs: the token that its relay wants to see, connections that are kept, and TLS."""

    token: Secret | None = None
    connections: IdleConnections | None = None
    tls: ssl.SSLContext | None = None

    async def aclose(self) -> None:
        """Close what is kept."""
        if self.connections:
            with trio.CancelScope(shield=True):
                await self.connections.aclose()

    def headers(self, target: Candidate, request: TaskRequest) -> dict[str, str]:
        """Those for the relay; an engine that the queen speaks to herself gets none."""
        mark = session_mark(request) if target.node_id is not None else None
        return self.credentials(target) | ({SESSION_HEADER: mark} if mark else {})

    def credentials(self, target: Candidate) -> dict[str, str]:
        """What the relay of a node wants to see; an engine that the queen speaks to herself gets none."""
        known = target.node_id is not None and self.token
        return {"authorization": f"Bearer {known.get_secret_value()}"} if known else {}


DIRECT = Hop()


def session_mark(request: TaskRequest) -> str | None:
    """By which a node tells a session's turns from others, without learning the session's id; None where a turn is to
    go wherever there is most room."""
    if request.session_id is None or request.kv_hint == "cold":
        return None
    return sha256(request.session_id.bytes).hexdigest()[:MARK_DIGITS]
