"""The queen's own health checks of replicas: the engine's health path, through the node's relay where there is one."""

import trio

from llama_orch.engines import health_path, is_loading
from llama_orch.http.client.client import UpstreamError, fetch
from queen_rbee.dispatch.hop import Hop
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.registry import PoolRegistry

LIMIT_S = 5.0
ANSWER_LIMIT = 1 << 20
INTERVAL_S = 15.0
MOST_A_SECOND = 20.0
"""With more replicas than this allows in INTERVAL_S, each is checked more rarely."""


async def is_well(target: Candidate, hop: Hop, metrics: Metrics) -> bool:
    """Whether `target` says within LIMIT_S that it can serve."""
    began = trio.current_time()
    try:
        status, _body = await fetch(
            target.url + health_path(target.engine),
            limit_s=LIMIT_S,
            headers=hop.credentials(target),
            size=ANSWER_LIMIT,
            tls=hop.tls if target.node_id else None,
        )
    except UpstreamError:
        metrics.checked(target.pool_id, "unreachable", trio.current_time() - began)
        return False
    found = "ready" if status == 200 else "starting" if is_loading(target.engine, status) else "unready"
    metrics.checked(target.pool_id, found, trio.current_time() - began)
    return status == 200


async def keep_checking(registry: PoolRegistry, hop: Hop, metrics: Metrics) -> None:
    """Measure how every replica that is said to be ready answers, for ever. A circuit opens by what tasks meet, not by
    this: it only counts and times."""
    while True:
        targets = [found for found in registry.replicas.all() if found.ready]
        pause_s = max(INTERVAL_S, len(targets) / MOST_A_SECOND) / max(1, len(targets))
        async with trio.open_nursery() as nursery:
            for target in targets:
                nursery.start_soon(is_well, target, hop, metrics)
                await trio.sleep(pause_s)
        if not targets:
            await trio.sleep(INTERVAL_S)
