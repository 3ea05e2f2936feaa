"""Routes of nodes and their GPUs.

Heartbeats are on the hot path: each node of a fleet sends one every few seconds.
"""

from quart import Response, request
from werkzeug.routing import BaseConverter

from llama_orch.contracts.base import NODE_ID_RESERVED
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.gpus import GpuList
from llama_orch.contracts.nodes import (
    Heartbeat,
    HeartbeatAnswer,
    NodeList,
    NodeReachability,
    NodeRegistered,
    NodeRegistration,
    NodeView,
)
from llama_orch.contracts.operations import Operation
from llama_orch.http.server.bodies import read
from llama_orch.http.server.exchange import Exchange
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.mounting import json_response_in_thread
from llama_orch.http.server.routes import JSON, Parameter, Reply, RequestBody, gate_route, json_reply, route
from queen_rbee.api.parameters import TEXT
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.fleet.managers import PoolManagers, gpus, reachability, unfence_gpu
from queen_rbee.waking.waker import Waker

REGISTRATION = RequestBody(
    NodeRegistration,
    {
        "one": {
            "node_id": "gpu-node-1",
            "machine_id": "0123456789abcdef0123456789abcdef",
            "address": "http://127.0.0.1:9200",
            "pools": ["default"],
            "version": "0.1.0",
        }
    },
    Shape(values=4_000, nodes=4_000),
    256 << 10,
)
HEARTBEAT = RequestBody(
    Heartbeat,
    {"one": {"timestamp": "2026-01-01T00:00:00Z", "pools": []}},
    Shape(values=200_000, nodes=100_000),
    4 << 20,
)


class NodeIdConverter(BaseConverter):
    """A node id in a path; reserved words such as `register` are other paths."""

    regex = f"(?!{NODE_ID_RESERVED}$)[^/]+"


NODE = {"node_id": "node"}


class NodeRoutes:
    """Without `cloud` (HOME_PROFILE) there are no nodes, and registrations are refused."""

    def __init__(self, fleet: Fleet, managers: PoolManagers, waker: Waker, *, cloud: bool) -> None:
        self._fleet = fleet
        self._waker = waker
        self._managers = managers
        self._cloud = cloud

    @route(
        "POST",
        "/v2/nodes/register",
        "Register a node",
        {200: json_reply("The node is registered.", NodeRegistered, node_id="/node_id")},
        body=REGISTRATION,
        errors=(409, 503),
        description="For pool-managerd. 409 if another pool-managerd sends heartbeats under this node id (from another "
        "machine, or from the same machine at another address), and in HOME_PROFILE, where there are no nodes.",
    )
    async def register_node(self, registration: NodeRegistration) -> NodeRegistered:
        if not self._cloud:
            raise _home_profile()
        return await self._fleet.register(registration, request.remote_addr or "this machine")

    @gate_route(
        "POST",
        "/v2/nodes/{node_id}/heartbeat",
        "Report the state of a node",
        {200: json_reply("When to send the next heartbeat.", HeartbeatAnswer)},
        body=HEARTBEAT,
        errors=(409,),
        description="For pool-managerd. After 404 it must register again. 409 if another pool-managerd is registered "
        "under this node id: machine_id and instance_id must be those of the registration.",
    )
    async def heartbeat(self, exchange: Exchange) -> None:
        report = await read(exchange, Heartbeat, HEARTBEAT.shape, HEARTBEAT.limit)
        answer = self._fleet.heartbeat(exchange.variables["node_id"], report)
        await exchange.send(200, answer.model_dump_json().encode(), [("content-type", JSON)])

    @route("GET", "/v2/nodes", "List nodes", {200: json_reply("The nodes.", NodeList, node_id="/nodes/0/node_id")})
    async def list_nodes(self) -> Response:
        nodes = self._fleet.views()
        return await json_response_in_thread(lambda: NodeList(nodes=nodes, count=len(nodes)))

    @route("GET", "/v2/nodes/{node_id}", "Get a node", {200: json_reply("The node.", NodeView)}, converters=NODE)
    async def get_node(self, node_id: str) -> NodeView:
        return self._fleet.node(node_id)

    @route(
        "GET",
        "/v2/nodes/{node_id}/reachability",
        "Check whether queen-rbee reaches a node",
        {200: json_reply("The result of the check.", NodeReachability)},
        converters=NODE,
    )
    async def check_node(self, node_id: str) -> NodeReachability:
        return await reachability(self._managers, self._fleet.node(node_id))

    @route(
        "POST",
        "/v2/nodes/{node_id}/wake",
        "Wake a node",
        {202: json_reply("Magic packets are sent until it sends a heartbeat.", Operation)},
        errors=(409,),
        description="For a node that is asleep or offline. 409 if it has not said how it is woken.",
        converters=NODE,
    )
    async def wake_node(self, node_id: str) -> Operation:
        return self._waker.wake(node_id)

    @route("GET", "/v2/gpus", "List the GPUs of all machines", {200: json_reply("The GPUs.", GpuList)})
    async def list_gpus(self) -> GpuList:
        return await gpus(self._managers)

    @route(
        "POST",
        "/v2/gpus/{gpu}/unfence",
        "End the fence of a GPU",
        {204: Reply("The GPU gets work again.")},
        parameters=(Parameter("node_id", "Only a GPU of this node.", TEXT),),
        errors=(409, 503),
        description="For a GPU that is in order although nothing tells that it was reset. 409 if it is not fenced, and "
        "if several machines have a GPU with this index.",
    )
    async def unfence_gpu(self, gpu: str) -> None:
        await unfence_gpu(self._managers, gpu, request.args.get("node_id") or None)

    @route(
        "DELETE",
        "/v2/nodes/{node_id}",
        "Remove a node",
        {204: Reply("The node is removed.")},
        parameters=(
            Parameter(
                "instance_id",
                "Remove the node only if this instance of pool-managerd is registered; otherwise 409.",
                TEXT,
            ),
        ),
        errors=(409, 503),
        converters=NODE,
    )
    async def remove_node(self, node_id: str) -> None:
        reason = f"deregistered from {request.remote_addr or 'this machine'}"
        await self._fleet.deregister(node_id, reason, request.args.get("instance_id"))


def _home_profile() -> ApiError:
    message = "queen-rbee runs in HOME_PROFILE, which has no nodes"
    hint = "To use nodes, set ORCHESTRATORD_CLOUD_PROFILE=true in queen-rbee's environment file and restart it."
    return ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint))
