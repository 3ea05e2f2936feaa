"""Routes of operations: drains of pools and nodes, loads and unloads of pools, and their progress."""

from quart import request

from llama_orch.contracts.operations import DrainRequest, OperationList
from llama_orch.contracts.operations import Operation as OperationView
from llama_orch.contracts.reloads import ReloadRequest
from llama_orch.http.server.routes import Parameter, RequestBody, json_reply, route
from queen_rbee.api.parameters import TEXT
from queen_rbee.fleet.operations import Operations, OperationTarget
from queen_rbee.residency.operators import OperatorLoads
from queen_rbee.residency.reloading import OperatorReloads

DRAIN = RequestBody(DrainRequest, {"gently": {}, "within a minute": {"deadline_ms": 60_000}}, optional=True)
DRAINING = {202: json_reply("No new tasks are placed there.", OperationView, operation_id="/operation_id")}
RESUMED = {202: json_reply("New tasks are placed there again.", OperationView, operation_id="/operation_id")}
ON_NODE = Parameter("node_id", "Only the pool on this node, if several nodes have a pool of this name.", TEXT)


LOADING = {202: json_reply("It is loaded as soon as there is memory for it.", OperationView)}
RELOAD = RequestBody(
    ReloadRequest, {"as it is": {}, "with another model": {"new_model_ref": "hf:org/repo/file.gguf"}}, optional=True
)
RELOADING = {202: json_reply("It is prepared while the former engine serves.", OperationView)}
PURGING = {202: json_reply("Its files are removed once it is unloaded.", OperationView)}
UNLOADING = {202: json_reply("It is unloaded once its tasks have ended.", OperationView)}


class OperationRoutes:
    def __init__(self, operations: Operations, loads: OperatorLoads, reloads: OperatorReloads) -> None:
        self._operations = operations
        self._loads = loads
        self._reloads = reloads

    @route("POST", "/v2/pools/{pool_id}/preload", "Load a pool", LOADING, parameters=(ON_NODE,), errors=(409,))
    async def preload_pool(self, pool_id: str) -> OperationView:
        return self._loads.load(_pool(pool_id))

    @route("POST", "/v2/pools/{pool_id}/unload", "Unload a pool", UNLOADING, parameters=(ON_NODE,), errors=(409,))
    async def unload_pool(self, pool_id: str) -> OperationView:
        return self._loads.unload(_pool(pool_id))

    @route(
        "POST",
        "/v2/pools/{pool_id}/reload",
        "Reload a pool, with another model or its own",
        RELOADING,
        body=RELOAD,
        parameters=(ON_NODE,),
        errors=(409, 503),
    )
    async def reload_pool(self, reload: ReloadRequest, pool_id: str) -> OperationView:
        return await self._reloads.reload(_pool(pool_id), reload)

    @route(
        "POST",
        "/v2/pools/{pool_id}/purge",
        "Unload a pool and remove its files from the disk",
        PURGING,
        parameters=(ON_NODE,),
        errors=(409,),
    )
    async def purge_pool(self, pool_id: str) -> OperationView:
        return self._reloads.purge(_pool(pool_id))

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
        return await self._operations.drain(OperationTarget(node_id=node_id), drain)

    @route("POST", "/v2/nodes/{node_id}/resume", "Resume a drained node", RESUMED, errors=(503,))
    async def resume_node(self, node_id: str) -> OperationView:
        return await self._operations.resume(OperationTarget(node_id=node_id))

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

    @route(
        "DELETE",
        "/v2/operations/{operation_id}",
        "Cancel an operation",
        {202: json_reply("The operation. A drain is ended by a resume.", OperationView)},
        errors=(409, 503),
    )
    async def cancel_operation(self, operation_id: str) -> OperationView:
        return await self._operations.cancel(operation_id)


def _pool(pool_id: str) -> OperationTarget:
    """The pool of the path: on the node of `?node_id=`, or on every node that has it."""
    return OperationTarget(pool_id, request.args.get("node_id") or None)
