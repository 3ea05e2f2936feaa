"""The operations on nodes, and the drains of pools and nodes."""

from llama_orch.contracts.nodes import (
    GpuList,
    Heartbeat,
    HeartbeatAnswer,
    NodeList,
    NodeReachability,
    NodeRegistered,
    NodeRegistration,
    NodeView,
)
from llama_orch.contracts.operations import DrainRequest, OperationList
from llama_orch.contracts.operations import Operation as OperationView
from queen_rbee.api.openapi.operation import TEXT, Answer, Operation, Parameter, document, reading

ON_NODE = Parameter("node_id", "Only on this node, of those that have such a pool.", TEXT)


def _drains(what: str, *parameters: Parameter) -> tuple[Operation, Operation]:
    """The two operations that begin a drain and undo it."""
    path = f"/v2/{what}s/{{{what}_id}}"
    return (
        Operation(
            "POST",
            f"{path}/drain",
            f"drain_{what}",
            f"Let a {what} run empty",
            {202: document("Nothing new is placed there.", OperationView, operation_id="/operation_id")},
            body=DrainRequest,
            body_optional=True,
            parameters=parameters,
            errors=(503,),
        ),
        Operation(
            "POST",
            f"{path}/resume",
            f"resume_{what}",
            f"Undo the drain of a {what}",
            {202: document("It gets tasks again.", OperationView, operation_id="/operation_id")},
            parameters=parameters,
            errors=(503,),
        ),
    )


DRAINS = (
    *_drains("pool", ON_NODE),
    *_drains("node"),
    reading(
        "/v2/operations",
        "list_operations",
        "Operations, newest first",
        OperationList,
        operation_id="/operations/0/operation_id",
    ),
    reading("/v2/operations/{operation_id}", "get_operation", "How far an operation is", OperationView),
)

NODES = (
    Operation(
        "POST",
        "/v2/nodes/register",
        "register_node",
        "Make a node known",
        {200: document("It is known.", NodeRegistered, node_id="/node_id")},
        body=NodeRegistration,
        errors=(409, 503),
        about="For pool-managerd. 409 while another pool-managerd is heard under this node id (one of another machine, "
        "or of the same machine at another address), and in HOME_PROFILE, where there are no nodes.",
    ),
    Operation(
        "POST",
        "/v2/nodes/{node_id}/heartbeat",
        "heartbeat",
        "Tell how a node is",
        {200: document("When to tell it next.", HeartbeatAnswer)},
        body=Heartbeat,
        errors=(409,),
        about="For pool-managerd; 404 asks it to register again. 409 where another pool-managerd is registered under "
        "this node id: machine_id and instance_id must be those of the registration.",
    ),
    reading("/v2/nodes", "list_nodes", "The nodes", NodeList, node_id="/nodes/0/node_id"),
    reading("/v2/nodes/{node_id}", "get_node", "One node", NodeView),
    reading(
        "/v2/nodes/{node_id}/reachability",
        "check_node",
        "Whether the queen reaches a node",
        NodeReachability,
    ),
    reading("/v2/gpus", "list_gpus", "The GPUs of all machines", GpuList),
    Operation(
        "DELETE",
        "/v2/nodes/{node_id}",
        "remove_node",
        "Take a node out",
        {204: Answer("It is known no more.")},
        parameters=(
            Parameter("instance_id", "Only if it is this run of pool-managerd that is registered; else 409.", TEXT),
        ),
        errors=(409, 503),
    ),
)
