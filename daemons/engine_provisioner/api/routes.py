"""Registration of engine-provisioner's routes: a new group of routes is added to GROUPS and to `add_routes`."""

from quart_trio import QuartTrio

from engine_provisioner.api.models import ModelRoutes
from engine_provisioner.api.operations import OperationRoutes
from engine_provisioner.api.pool_files import Obstacles, PoolFileRoutes
from engine_provisioner.api.pools import PoolRoutes
from engine_provisioner.api.reloading import Reloading, ReloadRoutes
from engine_provisioner.cache.model_cache import ModelCache
from engine_provisioner.operations import Operations
from engine_provisioner.pulls import Pulls
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.supervise.pool_set import PoolSet
from engine_provisioner.supervise.reloads import Reloads
from llama_orch.http.server.app import GROUPS as GROUPS_OF_EVERY_DAEMON
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.routes import routes_of

GROUPS = (PoolRoutes, ReloadRoutes, PoolFileRoutes, ModelRoutes, OperationRoutes)

ROUTES = routes_of(*GROUPS_OF_EVERY_DAEMON, *GROUPS)
"""Every route of engine-provisioner."""


def add_routes(
    app: QuartTrio,
    pools: PoolSet,
    reports: PoolReports,
    reloads: Reloads,
    cache: ModelCache,
    pulls: Pulls,
    operations: Operations,
    reloading: Reloading,
    obstacles: Obstacles,
    *,
    limit_bytes: int | None,
) -> None:
    """Register all groups with `app`; `limit_bytes` is that of the cache. `obstacles`: see PoolFileRoutes."""
    models = ModelRoutes(cache, pulls, limit_bytes)
    mount(app, None, PoolRoutes(pools, reloads), PoolFileRoutes(reloads.source, reports, obstacles), models)
    mount(app, None, OperationRoutes(operations), ReloadRoutes(reloading))
