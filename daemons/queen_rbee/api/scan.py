"""POST /v2/handoff/scan: how the path unit tells that the handoff directory has changed."""

from quart import Response
from quart_trio import QuartTrio

from queen_rbee.sources.handoffs import HandoffSource


def add_scan(app: QuartTrio, handoffs: HandoffSource | None) -> None:
    """Add the route; without a handoff directory (CLOUD_PROFILE) it has nothing to do and says so by 204 too."""

    @app.post("/v2/handoff/scan")
    async def scan() -> Response:
        if handoffs:
            await handoffs.look()
        return Response("", status=204)  # without a body, Quart looks for an asyncio loop
