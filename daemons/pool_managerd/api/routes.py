"""Registration of pool-managerd's routes: a new group of routes is added to GROUPS and to `add_routes`."""

import trio
from quart_trio import QuartTrio

from llama_orch.http.client.idle_connections import IdleConnections
from llama_orch.http.server.app import GROUPS as GROUPS_OF_EVERY_DAEMON
from llama_orch.http.server.exchange import HotRoutes
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.routes import routes_of
from pool_managerd.api.draining import DrainRoutes
from pool_managerd.api.gpus import GpuRoutes
from pool_managerd.api.loading import LoadingRoutes
from pool_managerd.api.node import NodeRoutes
from pool_managerd.api.pools import EngineRoutes, PoolRoutes
from pool_managerd.cluster.agent import Agent
from pool_managerd.draining import Draining
from pool_managerd.gpus.monitor import GpuMonitor
from pool_managerd.handoffs.handoffs import HandoffLoop
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.power.power import Power
from pool_managerd.provisioner_client import ProvisionerClient
from pool_managerd.relay.relay import Relay

GROUPS = (PoolRoutes, EngineRoutes, LoadingRoutes, DrainRoutes, NodeRoutes, GpuRoutes)

ROUTES = routes_of(*GROUPS_OF_EVERY_DAEMON, *GROUPS)
"""Every route of pool-managerd."""


def add_routes(
    app: QuartTrio,
    registry: NodePools,
    handoffs: HandoffLoop,
    draining: Draining,
    agent: Agent | None,
    provisioner: ProvisionerClient,
    monitor: GpuMonitor,
    power: Power,
    *,
    connections: IdleConnections | None = None,
    stop: trio.Event,
    body_limit: int,
) -> HotRoutes:
    """Register all groups with `app`; return the table of those that the gate serves.

    `connections` keeps idle connections to engines.
    """
    gate_routes = HotRoutes(body_limit)
    mount(
        app,
        gate_routes,
        PoolRoutes(registry, stop),
        EngineRoutes(Relay(registry, connections)),
        LoadingRoutes(registry, provisioner),
        DrainRoutes(registry, draining),
        NodeRoutes(agent, handoffs, power),
        GpuRoutes(registry, monitor),
    )
    return gate_routes
