"""Routes of the node: its registration, its GPUs, and its handoff directory."""

from dataclasses import asdict
from typing import Any

from llama_orch import VERSION
from llama_orch.contracts.nodes import NodeStanding
from llama_orch.http.server.routes import Reply, json_reply, route
from pool_managerd.cluster.agent import Agent
from pool_managerd.handoffs.handoffs import HandoffLoop
from pool_managerd.pools.node_pools import NodePools


class NodeRoutes:
    """`agent` is None in HOME_PROFILE."""

    def __init__(self, agent: Agent | None, registry: NodePools, handoffs: HandoffLoop) -> None:
        self._agent = agent
        self._registry = registry
        self._handoffs = handoffs

    @route("GET", "/v2/node", "Get the node and its registration", {200: json_reply("The node.", NodeStanding)})
    async def get_node(self) -> NodeStanding:
        return self._agent.view if self._agent else NodeStanding(profile="home", version=VERSION)

    @route("GET", "/v2/gpus", "List the GPUs", {200: json_reply("The GPUs.", {"type": "object"})})
    async def list_gpus(self) -> dict[str, Any]:
        gpus = self._registry.gpus
        return {"gpus": [asdict(gpu) for gpu in gpus.devices], "count": len(gpus.devices), "problem": gpus.problem}

    @route(
        "POST", "/v2/handoff/scan", "Scan the handoff directory now", {204: Reply("The directory has been scanned.")}
    )
    async def scan_handoffs(self) -> None:
        await self._handoffs.scan()
