"""Drain and resume, of one pool and of the node: POST, answered with 202 and how it stands."""

from quart_trio import QuartTrio

from llama_orch.contracts.operations import DrainRequest, DrainStatus
from llama_orch.http.server.posted import body_or
from pool_managerd.api.pools import no_such_pool
from pool_managerd.draining import Draining
from pool_managerd.pools.node_pools import NodePools

Answer = tuple[dict[str, object], int]


def add_drain_routes(app: QuartTrio, registry: NodePools, draining: Draining) -> None:
    """Mount drain and resume on `app`."""

    @app.post("/v2/pools/<pool_id>/drain")
    async def drain(pool_id: str) -> Answer:
        wanted = await drain_request()
        if registry.pool(pool_id) is None:
            raise no_such_pool(registry)
        draining.drain(pool_id, wanted.deadline_ms)
        return answer(draining.status(pool_id))

    @app.post("/v2/pools/<pool_id>/resume")
    async def resume(pool_id: str) -> Answer:
        if not draining.knows(pool_id):
            raise no_such_pool(registry)
        draining.resume(pool_id)
        return answer(draining.status(pool_id))

    @app.post("/v2/drain")
    async def drain_node() -> Answer:
        draining.drain_node((await drain_request()).deadline_ms)
        return answer(draining.status())

    @app.post("/v2/resume")
    async def resume_node() -> Answer:
        draining.resume_node()
        return answer(draining.status())


async def drain_request() -> DrainRequest:
    """The body of the current request; none at all asks for no deadline. Raises ApiError 400."""
    return await body_or(DrainRequest, DrainRequest())


def answer(status: DrainStatus) -> Answer:
    """202: how it stands now."""
    return status.model_dump(mode="json"), 202
