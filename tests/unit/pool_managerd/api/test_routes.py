"""pool-managerd serves exactly the routes that it declares."""

from pathlib import Path
from typing import cast

import trio
from prometheus_client import CollectorRegistry

from llama_orch.http.server.app import create_app
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.reloading import ConfigurationRoutes
from llama_orch.service.reload import Reloader
from pool_managerd.api.routes import ROUTES, add_routes
from pool_managerd.draining import Draining
from pool_managerd.gpus.monitor import GpuMonitor
from pool_managerd.handoffs.handoffs import HandoffLoop
from pool_managerd.metrics import Metrics
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.power.power import Power
from pool_managerd.provisioner_client import ProvisionerClient

AUTOMATIC_METHODS = {"HEAD", "OPTIONS"}


async def test_every_declared_route_is_served() -> None:
    registry = NodePools()
    app = create_app("pool-managerd", list, CollectorRegistry())
    mount(app, None, ConfigurationRoutes(cast(Reloader, None)))
    gate_routes = add_routes(
        app,
        registry,
        cast(HandoffLoop, None),
        Draining(registry, Metrics(registry), "n"),
        None,
        ProvisionerClient(Path("engines")),
        cast(GpuMonitor, None),
        cast(Power, None),
        stop=trio.Event(),
        body_limit=1,
    )
    served = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - AUTOMATIC_METHODS
    }
    assert {*served, *gate_routes.declared} == {(route.method, route.path) for route in ROUTES}
