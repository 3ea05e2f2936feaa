"""Routes of the node: its registration and its handoff directory."""

from llama_orch import VERSION
from llama_orch.contracts.nodes import NodeStanding
from llama_orch.http.server.routes import Reply, json_reply, route
from pool_managerd.cluster.agent import Agent
from pool_managerd.handoffs.handoffs import HandoffLoop


class NodeRoutes:
    """`agent` is None in HOME_PROFILE."""

    def __init__(self, agent: Agent | None, handoffs: HandoffLoop) -> None:
        self._agent = agent
        self._handoffs = handoffs

    @route("GET", "/v2/node", "Get the node and its registration", {200: json_reply("The node.", NodeStanding)})
    async def get_node(self) -> NodeStanding:
        return self._agent.view if self._agent else NodeStanding(profile="home", version=VERSION)

    @route(
        "POST", "/v2/handoff/scan", "Scan the handoff directory now", {204: Reply("The directory has been scanned.")}
    )
    async def scan_handoffs(self) -> None:
        await self._handoffs.scan()
