"""GET /v2/node: which node this is, and how it stands with its queen."""

from typing import Any

from quart_trio import QuartTrio

from llama_orch import VERSION
from llama_orch.contracts.nodes import NodeStanding
from pool_managerd.cluster.agent import Agent


def add_node_route(app: QuartTrio, agent: Agent | None) -> None:
    """Mount it on `app`; without an agent it is HOME_PROFILE."""

    @app.get("/v2/node")
    async def node() -> dict[str, Any]:
        found = agent.view if agent else NodeStanding(profile="home", version=VERSION)
        return found.model_dump(mode="json")
