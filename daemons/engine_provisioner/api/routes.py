"""Registration of engine-provisioner's routes: a new group of routes is added to GROUPS and to `add_routes`."""

from collections.abc import Mapping

from quart_trio import QuartTrio

from engine_provisioner.api.models import ModelRoutes
from engine_provisioner.api.operations import OperationRoutes
from engine_provisioner.api.pools import PoolRoutes
from engine_provisioner.cache.model_cache import ModelCache
from engine_provisioner.operations import Operations
from engine_provisioner.pulls import Pulls
from engine_provisioner.supervise.wanted import Wanted
from llama_orch.http.server.app import GROUPS as GROUPS_OF_EVERY_DAEMON
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.routes import routes_of

GROUPS = (PoolRoutes, ModelRoutes, OperationRoutes)

ROUTES = routes_of(*GROUPS_OF_EVERY_DAEMON, *GROUPS)
"""Every route of engine-provisioner."""


def add_routes(
    app: QuartTrio,
    wanted: Mapping[str, Wanted],
    watched: frozenset[str],
    cache: ModelCache,
    pulls: Pulls,
    operations: Operations,
    *,
    limit_bytes: int | None,
) -> None:
    """Register all groups with `app`; `wanted` and `watched` as in PoolRoutes."""
    models = ModelRoutes(cache, pulls, limit_bytes)
    mount(app, None, PoolRoutes(wanted, watched), models, OperationRoutes(operations))
