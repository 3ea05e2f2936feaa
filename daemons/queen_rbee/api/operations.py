"""Routes of operations: drains of pools and nodes, and their progress."""

from quart import request

from llama_orch.contracts.operations import DrainRequest, OperationList
from llama_orch.contracts.operations import Operation as OperationView
from llama_orch.http.server.routes import Parameter, RequestBody, json_reply, route
from queen_rbee.api.parameters import TEXT
from queen_rbee.fleet.operations import DrainTarget, Operations

DRAIN = RequestBody(DrainRequest, {"gently": {}, "within a minute": {"deadline_ms": 60_000}}, optional=True)
DRAINING = {202: json_reply("No new tasks are placed there.", OperationView, operation_id="/operation_id")}
RESUMED = {202: json_reply("New tasks are placed there again.", OperationView, operation_id="/operation_id")}
ON_NODE = Parameter("node_id", "Only the pool on this node, if several nodes have a pool of this name.", TEXT)


class OperationRoutes:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    @route(
        "POST",
        "/v2/pools/{pool_id}/drain",
        "Drain a pool",
        DRAINING,
        body=DRAIN,
        parameters=(ON_NODE,),
        errors=(503,),
    )
    async def drain_pool(self, drain: DrainRequest, pool_id: str) -> OperationView:
        return await self._operations.drain(_pool(pool_id), drain)

    @route("POST", "/v2/pools/{pool_id}/resume", "Resume a drained pool", RESUMED, parameters=(ON_NODE,), errors=(503,))
    async def resume_pool(self, pool_id: str) -> OperationView:
        return await self._operations.resume(_pool(pool_id))

    @route("POST", "/v2/nodes/{node_id}/drain", "Drain a node", DRAINING, body=DRAIN, errors=(503,))
    async def drain_node(self, drain: DrainRequest, node_id: str) -> OperationView:
        return await self._operations.drain(DrainTarget(node_id=node_id), drain)

    @route("POST", "/v2/nodes/{node_id}/resume", "Resume a drained node", RESUMED, errors=(503,))
    async def resume_node(self, node_id: str) -> OperationView:
        return await self._operations.resume(DrainTarget(node_id=node_id))

    @route(
        "GET",
        "/v2/operations",
        "List operations, newest first",
        {200: json_reply("The operations.", OperationList, operation_id="/operations/0/operation_id")},
    )
    async def list_operations(self) -> OperationList:
        operations = self._operations.views()
        return OperationList(operations=operations, count=len(operations))

    @route(
        "GET",
        "/v2/operations/{operation_id}",
        "Get the progress of an operation",
        {200: json_reply("The operation.", OperationView)},
    )
    async def get_operation(self, operation_id: str) -> OperationView:
        return self._operations.view(operation_id)


def _pool(pool_id: str) -> DrainTarget:
    """The pool of the path: on the node of `?node_id=`, or on every node that has it."""
    return DrainTarget(pool_id, request.args.get("node_id") or None)
