"""/v2/pools/{id}/engine/{path}: the relay to a pool's engines, as a hot path."""

from llama_orch.engines.relay_paths import relay_purpose
from llama_orch.http.server.exchange import HotRoutes
from llama_orch.settings.api import BODY_LIMIT
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.relay.relay import Relay
from pool_managerd.relay.rules import Allow


def hot_routes(registry: NodePools, body_limit: int = BODY_LIMIT, allows: Allow = relay_purpose) -> HotRoutes:
    """pool-managerd's hot paths."""
    routes = HotRoutes(body_limit)
    routes.add("ANY", "/v2/pools/{pool_id}/engine/{path...}", Relay(registry, allows=allows))
    return routes
