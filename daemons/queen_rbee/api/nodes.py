"""Nodes and their GPUs: registered, heard, listed, taken out.

Heartbeats are hot: each node of a fleet sends one every few seconds.
"""

from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.routing import BaseConverter

from llama_orch.contracts.base import NODE_ID_RESERVED
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.nodes import Heartbeat, NodeList, NodeRegistration
from llama_orch.http.server.bodies import read
from llama_orch.http.server.exchange import Exchange, HotRoutes
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.posted import body_of
from queen_rbee.api.views import answer, answer_of
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.fleet.managers import PoolManagers, gpus, reachability

REGISTRATION_LIMIT = 256 << 10
REGISTRATION_SHAPE = Shape(values=4_000, nodes=4_000)
HEARTBEAT_LIMIT = 4 << 20
HEARTBEAT_SHAPE = Shape(values=200_000, nodes=100_000)


class NodeName(BaseConverter):
    """The id of a node in a path."""

    regex = f"(?!{NODE_ID_RESERVED}$)[^/]+"


def add_heartbeats(routes: HotRoutes, fleet: Fleet) -> None:
    """Add the hot route."""

    async def heartbeat(exchange: Exchange) -> None:
        told = await read(exchange, Heartbeat, HEARTBEAT_SHAPE, HEARTBEAT_LIMIT)
        found = fleet.heartbeat(exchange.variables["node_id"], told)
        await exchange.send(200, found.model_dump_json().encode(), [("content-type", "application/json")])

    routes.add("POST", "/v2/nodes/{node_id}/heartbeat", heartbeat)


def add_nodes(app: QuartTrio, fleet: Fleet, managers: PoolManagers, *, cloud: bool) -> None:
    """Add the other routes to `app`; without `cloud` there are no nodes."""

    app.url_map.converters["node"] = NodeName

    @app.get("/v2/gpus")
    async def all_gpus() -> Response:
        return answer(await gpus(managers))

    @app.get("/v2/nodes/<node:node_id>/reachability")
    async def reached(node_id: str) -> Response:
        return answer(await reachability(managers, fleet.node(node_id)))

    @app.post("/v2/nodes/register")
    async def register() -> Response:
        registration = await body_of(NodeRegistration, REGISTRATION_SHAPE, REGISTRATION_LIMIT)
        if not cloud:
            raise _at_home()
        return answer(await fleet.register(registration, request.remote_addr or "this machine"))

    @app.get("/v2/nodes")
    async def nodes() -> Response:
        found = fleet.views()
        return await answer_of(lambda: NodeList(nodes=found, count=len(found)))

    @app.get("/v2/nodes/<node:node_id>")
    async def node(node_id: str) -> Response:
        return answer(fleet.node(node_id))

    @app.delete("/v2/nodes/<node:node_id>")
    async def remove(node_id: str) -> Response:
        reason = f"deregistered from {request.remote_addr or 'this machine'}"
        await fleet.deregister(node_id, reason, request.args.get("instance_id"))
        return Response("", status=204)  # without a body, Quart looks for an asyncio loop


def _at_home() -> ApiError:
    message = "this queen is in HOME_PROFILE, where there are no nodes"
    hint = "For nodes: ORCHESTRATORD_CLOUD_PROFILE=true in the queen's environment file, and a restart."
    return ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint))
