"""Routes that drain and resume a pool or the whole node."""

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.operations import DrainRequest, DrainStatus
from llama_orch.http.server.routes import RequestBody, json_reply, route
from pool_managerd.api.pools import no_such_pool
from pool_managerd.draining import Draining
from pool_managerd.pools.node_pools import NodePools

DRAIN = RequestBody(DrainRequest, optional=True)
ACCEPTED = {202: json_reply("The state of the drain.", DrainStatus)}


class DrainRoutes:
    def __init__(self, registry: NodePools, draining: Draining) -> None:
        self._registry = registry
        self._draining = draining

    @route("POST", "/v2/pools/{pool_id}/drain", "Drain a pool", ACCEPTED, body=DRAIN)
    async def drain_pool(self, drain: DrainRequest, pool_id: str) -> DrainStatus:
        if self._registry.pool(pool_id) is None:
            raise no_such_pool(self._registry)
        self._draining.drain(pool_id, drain.deadline_ms)
        return self._draining.status(pool_id)

    @route("POST", "/v2/pools/{pool_id}/resume", "Resume a drained pool", ACCEPTED, errors=(409,))
    async def resume_pool(self, pool_id: str) -> DrainStatus:
        if not self._draining.knows(pool_id):
            raise no_such_pool(self._registry)
        if pool_id in self._registry.fenced:
            raise _fenced(self._registry, pool_id)
        self._draining.resume(pool_id)
        return self._draining.status(pool_id)

    @route("POST", "/v2/drain", "Drain the node", ACCEPTED, body=DRAIN)
    async def drain_node(self, drain: DrainRequest) -> DrainStatus:
        self._draining.drain_node(drain.deadline_ms)
        return self._draining.status()

    @route("POST", "/v2/resume", "Resume the drained node", ACCEPTED)
    async def resume_node(self) -> DrainStatus:
        self._draining.resume_node()
        return self._draining.status()


def _fenced(registry: NodePools, pool_id: str) -> ApiError:
    pool = registry.pool(pool_id)
    message = f"its GPU is fenced: {pool.last_error if pool else pool_id}"
    hint = "The pool takes requests again when the fence ends; see GET /v2/gpus."
    return ApiError(409, ErrorBody(code=ErrorCode.POOL_UNREADY, message=message, hint=hint, pool_id=pool_id))
