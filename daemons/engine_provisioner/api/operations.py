"""Routes of long-running operations."""

from engine_provisioner.operations import Operation, Operations
from llama_orch.contracts.errors import ApiError, not_found
from llama_orch.contracts.node_operations import NodeOperation, NodeOperationList
from llama_orch.http.server.routes import json_reply, route

HINT = "GET /v2/operations lists those since the daemon's start; only the last ended ones are kept."
LIST = {200: json_reply("The operations, newest first.", NodeOperationList)}
ONE = {200: json_reply("The operation.", NodeOperation)}


class OperationRoutes:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    @route("GET", "/v2/operations", "List operations", LIST)
    async def list_operations(self) -> NodeOperationList:
        found = [operation.view for operation in self._operations.newest_first()]
        return NodeOperationList(operations=found, count=len(found))

    @route("GET", "/v2/operations/{operation_id}", "Get an operation", ONE)
    async def get_operation(self, operation_id: str) -> NodeOperation:
        return self._find(operation_id).view

    @route(
        "DELETE",
        "/v2/operations/{operation_id}",
        "Cancel an operation",
        {202: json_reply("The operation, which ends soon. One that has ended is left as it is.", NodeOperation)},
    )
    async def cancel_operation(self, operation_id: str) -> NodeOperation:
        operation = self._find(operation_id)
        self._operations.cancel(operation)
        return operation.view

    def _find(self, operation_id: str) -> Operation:
        operation = self._operations.get(operation_id)
        if operation is None:
            raise no_such_operation(operation_id)
        return operation


def no_such_operation(operation_id: str) -> ApiError:
    return not_found("operation", operation_id, HINT)
