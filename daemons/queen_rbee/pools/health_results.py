"""Results of health checks, as the metrics name them."""

from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.contracts.pools import PoolStatus

CHECK_ERRORS = frozenset({"failed", "offline", "unready", "unreachable"})
"""The health check results that count as errors. Loading and draining are expected states."""


def check_outcome(result: str) -> str:
    """Return `success` or `error` for the result of a health check."""
    return "error" if result in CHECK_ERRORS else "success"


def check_result(pool: PoolStatus | PoolSnapshot) -> str:
    """Return the health check result for the reported state of a pool."""
    if pool.ready:
        return "ready"
    if pool.draining:
        return "draining"
    return "unready" if pool.state == "ready" else pool.state.value
