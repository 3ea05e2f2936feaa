"""Registrations that are refused because another pool-managerd uses the node id, and the warnings about them."""

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.nodes import NodeRegistration
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.log_limit import LogLimit
from llama_orch.telemetry.records import emit

WARNING_S = 60.0
"""How long the answers to a node's heartbeats warn that another pool-managerd tried to register under its id."""


class Conflicts:
    """Owns the warnings for nodes whose id another pool-managerd wants.

    `timeout_ms` is the time without a heartbeat after which an id is free.
    """

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._warnings: dict[str, tuple[float, str]] = {}
        self._refusals = LogLimit()

    def refusal(self, registration: NodeRegistration, peer: str, reason: str) -> ApiError:
        """Record that `registration` is refused, and return the error 409 for it."""
        fields = registration.model_dump(include={"node_id", "address"})
        if self._refusals.due(f"{registration.node_id} {registration.address}"):
            emit(events.NODE_REFUSED, **fields, peer=peer, reason=reason)
        warning = (
            f"refused another pool-managerd, at {registration.address} (from {peer}), that tries to register under "
            "this node id; set a different POOL_MANAGERD_NODE_ID there, or stop it"
        )
        self._warnings[registration.node_id] = trio.current_time(), warning
        hint = (
            "Set a different POOL_MANAGERD_NODE_ID, or stop the other pool-managerd. If that one is gone, remove "
            f"the old node (orchctl nodes remove), or wait: its id is free after {self._timeout_ms / 1000:g} s "
            "without a heartbeat."
        )
        return ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=reason, hint=hint))

    def warning(self, node_id: str, now: float) -> str | None:
        """Return the warning for the node that has the id, for WARNING_S seconds."""
        since, warning = self._warnings.get(node_id, (-WARNING_S, ""))
        if now - since < WARNING_S:
            return warning
        self._warnings.pop(node_id, None)
        return None

    def forget(self, node_id: str) -> None:
        self._warnings.pop(node_id, None)
