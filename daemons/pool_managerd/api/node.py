"""Routes of the node: its registration and its handoff directory."""

from llama_orch import VERSION
from llama_orch.contracts.nodes import NodeStanding
from llama_orch.http.server.routes import Reply, json_reply, route
from pool_managerd.cluster.agent import Agent
from pool_managerd.handoffs.handoffs import HandoffLoop
from pool_managerd.power.power import Power


class NodeRoutes:
    """`agent` is None in HOME_PROFILE."""

    def __init__(self, agent: Agent | None, handoffs: HandoffLoop, power: Power) -> None:
        self._power = power
        self._agent = agent
        self._handoffs = handoffs

    @route("GET", "/v2/node", "Get the node and its registration", {200: json_reply("The node.", NodeStanding)})
    async def get_node(self) -> NodeStanding:
        if self._agent is None:
            return NodeStanding(profile="home", version=VERSION)
        return self._agent.view.model_copy(update={"sleep": self._power.line})

    @route(
        "POST", "/v2/handoff/scan", "Scan the handoff directory now", {204: Reply("The directory has been scanned.")}
    )
    async def scan_handoffs(self) -> None:
        await self._handoffs.scan()
