"""Routes that load, unload, reload and purge a pool by way of engine-provisioner. Progress is in the pool's status."""

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.pools import PoolStatus
from llama_orch.contracts.reloads import PoolPurged, ReloadCancel, ReloadOrder, SwitchOrder
from llama_orch.http.server.routes import RequestBody, json_reply, route
from llama_orch.telemetry.events.pools import LOAD_PASSED_ON
from llama_orch.telemetry.records import emit
from pool_managerd.api.pools import no_such_pool
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.provisioner_client import ProvisionerClient

RELOAD = RequestBody(ReloadOrder, {"with another model": {"new_model_ref": "file:/srv/models/m.gguf"}}, optional=True)
SWITCH = RequestBody(SwitchOrder, {"it has no tasks": {"reload_id": "1f", "drained": True}})
CANCEL = RequestBody(ReloadCancel, {"that one": {"reload_id": "1f"}})
ACCEPTED = {202: json_reply("Accepted; the pool as it is now.", PoolStatus)}


class LoadingRoutes:
    def __init__(self, registry: NodePools, provisioner: ProvisionerClient) -> None:
        self._registry = registry
        self._provisioner = provisioner

    @route("POST", "/v2/pools/{pool_id}/preload", "Load a pool", ACCEPTED, errors=(404, 409, 503))
    async def preload_pool(self, pool_id: str) -> PoolStatus:
        self._pool(pool_id)
        emit(LOAD_PASSED_ON, pool_id=pool_id)
        await self._provisioner.load(pool_id)
        return self._pool(pool_id)

    @route("POST", "/v2/pools/{pool_id}/unload", "Unload an idle pool", ACCEPTED, errors=(404, 409, 503))
    async def unload_pool(self, pool_id: str) -> PoolStatus:
        self._idle(pool_id)
        await self._provisioner.unload(pool_id)
        return self._pool(pool_id)

    @route("POST", "/v2/pools/{pool_id}/reload", "Reload a pool", ACCEPTED, body=RELOAD, errors=(400, 404, 409, 503))
    async def reload_pool(self, order: ReloadOrder, pool_id: str) -> PoolStatus:
        self._pool(pool_id)
        await self._provisioner.reload(pool_id, order)
        return self._pool(pool_id)

    @route(
        "POST",
        "/v2/pools/{pool_id}/reload/switch",
        "Say that a pool is drained for its reload",
        ACCEPTED,
        body=SWITCH,
        errors=(404, 409, 503),
    )
    async def switch_pool(self, order: SwitchOrder, pool_id: str) -> PoolStatus:
        if order.drained:
            self._idle(pool_id)
        await self._provisioner.switch(pool_id, order)
        return self._pool(pool_id)

    @route(
        "POST",
        "/v2/pools/{pool_id}/reload/cancel",
        "Call off a reload",
        ACCEPTED,
        body=CANCEL,
        errors=(404, 409, 503),
    )
    async def cancel_reload(self, cancel: ReloadCancel, pool_id: str) -> PoolStatus:
        self._pool(pool_id)
        await self._provisioner.cancel_reload(pool_id, cancel)
        return self._pool(pool_id)

    @route(
        "POST",
        "/v2/pools/{pool_id}/purge",
        "Remove what only an unloaded pool uses from the disk",
        {200: json_reply("What was freed.", PoolPurged)},
        errors=(404, 409, 503),
    )
    async def purge_pool(self, pool_id: str) -> PoolPurged:
        self._idle(pool_id)
        return await self._provisioner.purge(pool_id)

    def _idle(self, pool_id: str) -> None:
        """Raises ApiError 409 if the relay has requests for the pool, 404 if there is no such pool."""
        self._pool(pool_id)
        if leases := self._registry.leases.of_pool(pool_id):
            message = f"pool {pool_id} is busy with {leases} relayed requests"
            hint = f"Wait for them, or POST /v2/pools/{pool_id}/drain first."
            code = ErrorCode.POOL_UNAVAILABLE
            raise ApiError(409, ErrorBody(code=code, message=message, hint=hint, retriable=True, pool_id=pool_id))

    def _pool(self, pool_id: str) -> PoolStatus:
        pool = self._registry.pool(pool_id)
        if pool is None:
            raise no_such_pool(self._registry)
        return pool
