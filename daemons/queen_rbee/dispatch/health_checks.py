"""Health checks of replicas by queen-rbee: the engine's health path, through the node's relay if there is one."""

import trio

from llama_orch.engines import health_path, is_loading
from llama_orch.http.client.client import UpstreamError, fetch
from queen_rbee.dispatch.hop import Hop
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.registry import PoolRegistry

TIMEOUT_S = 5.0
ANSWER_LIMIT = 1 << 20
INTERVAL_S = 15.0
MAX_CHECKS_PER_S = 20.0
"""With more replicas than this rate allows in INTERVAL_S, each is checked less often."""


async def is_healthy(target: Candidate, hop: Hop, metrics: Metrics) -> bool:
    """Return whether `target` answers within TIMEOUT_S that it can serve; count and time the check."""
    started_at = trio.current_time()
    try:
        status, _body = await fetch(
            target.url + health_path(target.engine),
            limit_s=TIMEOUT_S,
            headers=hop.credentials(target),
            size=ANSWER_LIMIT,
            tls=hop.tls if target.node_id else None,
        )
    except UpstreamError:
        metrics.checked(target.pool_id, "unreachable", trio.current_time() - started_at)
        return False
    outcome = "ready" if status == 200 else "starting" if is_loading(target.engine, status) else "unready"
    metrics.checked(target.pool_id, outcome, trio.current_time() - started_at)
    return status == 200


async def check_forever(registry: PoolRegistry, hop: Hop, metrics: Metrics) -> None:
    """Check all ready replicas in turn, for the metrics only: circuits open by the failures of tasks."""
    while True:
        targets = [replica for replica in registry.replicas.all() if replica.ready]
        pause_s = max(INTERVAL_S, len(targets) / MAX_CHECKS_PER_S) / max(1, len(targets))
        async with trio.open_nursery() as nursery:
            for target in targets:
                nursery.start_soon(is_healthy, target, hop, metrics)
                await trio.sleep(pause_s)
        if not targets:
            await trio.sleep(INTERVAL_S)
