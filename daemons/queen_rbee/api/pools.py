"""Routes that show pools and the capabilities of the daemon."""

from quart import Response

from llama_orch import VERSION
from llama_orch.contracts.errors import not_found
from llama_orch.contracts.meta import Capabilities, Version
from llama_orch.contracts.pools import PoolFigures, PoolHealth, PoolList
from llama_orch.engines.wire.adapters import adapters
from llama_orch.http.server.mounting import json_response_in_thread
from llama_orch.http.server.routes import Reply, json_reply, route
from queen_rbee.pools.candidates import public_pool
from queen_rbee.pools.capabilities import API_VERSION, capabilities
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.residency.keeper import Keeper
from queen_rbee.sources.handoffs import HandoffSource


class PoolRoutes:
    """`handoffs` is None without a handoff directory (CLOUD_PROFILE)."""

    def __init__(self, registry: PoolRegistry, handoffs: HandoffSource | None, keeper: Keeper) -> None:
        self._registry = registry
        self._handoffs = handoffs
        self._keeper = keeper

    @route("GET", "/v2/pools", "List pools", {200: json_reply("The pools.", PoolList, pool_id="/pools/0/pool_id")})
    async def list_pools(self) -> Response:
        pools = [self._keeper.with_idle_times(pool) for pool in self._registry.pools()]
        return await json_response_in_thread(lambda: PoolList(pools=[*map(public_pool, pools)], count=len(pools)))

    @route(
        "GET",
        "/v2/pools/{pool_id}/health",
        "Get the health of a pool",
        {200: json_reply("The pool's health.", PoolHealth)},
    )
    async def get_pool_health(self, pool_id: str) -> PoolHealth:
        for pool in self._registry.pools_named(pool_id):
            fields = pool.model_dump()
            return PoolHealth(**fields, metrics=PoolFigures(**fields))
        raise not_found("pool", pool_id, "GET /v2/pools lists the pools.")

    @route(
        "POST", "/v2/handoff/scan", "Scan the handoff directory now", {204: Reply("The directory has been scanned.")}
    )
    async def scan_handoffs(self) -> None:
        if self._handoffs:
            await self._handoffs.scan()

    @route(
        "GET",
        "/v2/meta/version",
        "Get the versions of release and API",
        {200: json_reply("The versions.", Version)},
        public=True,
    )
    async def get_version(self) -> Version:
        return Version(version=VERSION, api_version=API_VERSION)

    @route(
        "GET",
        "/v2/meta/capabilities",
        "List what each pool offers",
        {200: json_reply("Engines and pools with their capabilities.", Capabilities)},
        public=True,
    )
    async def get_capabilities(self) -> Response:
        pools = self._registry.pools()
        return await json_response_in_thread(lambda: capabilities(pools, adapters()))
