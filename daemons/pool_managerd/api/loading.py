"""Routes that load and unload a pool by way of engine-provisioner. Progress is in the pool's status."""

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.pools import PoolStatus
from llama_orch.http.server.routes import json_reply, route
from pool_managerd.api.pools import no_such_pool
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.provisioner_client import ProvisionerClient

ACCEPTED = {202: json_reply("Accepted; the pool as it is now.", PoolStatus)}


class LoadingRoutes:
    def __init__(self, registry: NodePools, provisioner: ProvisionerClient) -> None:
        self._registry = registry
        self._provisioner = provisioner

    @route("POST", "/v2/pools/{pool_id}/preload", "Load a pool", ACCEPTED, errors=(404, 409, 503))
    async def preload_pool(self, pool_id: str) -> PoolStatus:
        self._pool(pool_id)
        await self._provisioner.load(pool_id)
        return self._pool(pool_id)

    @route("POST", "/v2/pools/{pool_id}/unload", "Unload an idle pool", ACCEPTED, errors=(404, 409, 503))
    async def unload_pool(self, pool_id: str) -> PoolStatus:
        self._pool(pool_id)
        if leases := self._registry.leases.of_pool(pool_id):
            message = f"pool {pool_id} is busy with {leases} relayed requests"
            hint = f"Wait for them, or POST /v2/pools/{pool_id}/drain first."
            body = ErrorBody(
                code=ErrorCode.POOL_UNAVAILABLE, message=message, hint=hint, retriable=True, pool_id=pool_id
            )
            raise ApiError(409, body)
        await self._provisioner.unload(pool_id)
        return self._pool(pool_id)

    def _pool(self, pool_id: str) -> PoolStatus:
        pool = self._registry.pool(pool_id)
        if pool is None:
            raise no_such_pool(self._registry)
        return pool
