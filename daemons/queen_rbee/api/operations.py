"""Drains of pools and nodes begun and undone, and how far they have come."""

from quart import Response, request
from quart_trio import QuartTrio

from llama_orch.contracts.operations import DrainRequest, OperationList
from llama_orch.http.server.posted import body_or
from queen_rbee.api.views import answer
from queen_rbee.fleet.operations import DrainTarget, Operations


def add_operations(app: QuartTrio, operations: Operations) -> None:
    """Add the routes to `app`."""

    @app.post("/v2/pools/<pool_id>/drain")
    async def drain_pool(pool_id: str) -> Response:
        return answer(await operations.drain(_pool(pool_id), await _wish()), 202)

    @app.post("/v2/pools/<pool_id>/resume")
    async def resume_pool(pool_id: str) -> Response:
        return answer(await operations.resume(_pool(pool_id)), 202)

    @app.post("/v2/nodes/<node_id>/drain")
    async def drain_node(node_id: str) -> Response:
        return answer(await operations.drain(DrainTarget(node_id=node_id), await _wish()), 202)

    @app.post("/v2/nodes/<node_id>/resume")
    async def resume_node(node_id: str) -> Response:
        return answer(await operations.resume(DrainTarget(node_id=node_id)), 202)

    @app.get("/v2/operations")
    async def listed() -> Response:
        found = operations.views()
        return answer(OperationList(operations=found, count=len(found)))

    @app.get("/v2/operations/<operation_id>")
    async def one(operation_id: str) -> Response:
        return answer(operations.view(operation_id))


def _pool(pool_id: str) -> DrainTarget:
    """The pool of the path, on the node of `?node_id=` or on all that have it."""
    return DrainTarget(pool_id, request.args.get("node_id") or None)


async def _wish() -> DrainRequest:
    """The body; none at all is one without a deadline. Raises ApiError 400."""
    return await body_or(DrainRequest, DrainRequest())
