"""Route of the API description. The code that builds it is imported with the first request."""

import json
from collections.abc import Sequence

import trio
from quart import Response

from llama_orch.http.server.routes import JSON, Route, json_reply, route


class DescriptionRoutes:
    """Describes `routes` in OpenAPI. The document is built once; concurrent first requests may each build it."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._document: bytes | None = None

    @route("GET", "/openapi.json", "Get this document", {200: json_reply("This document.", {"type": "object"})})
    async def get_description(self) -> Response:
        if self._document is None:
            self._document = await trio.to_thread.run_sync(self._build)
        return Response(self._document, content_type=JSON)

    def _build(self) -> bytes:
        from queen_rbee.api.openapi.document import openapi

        return json.dumps(openapi(self._routes), ensure_ascii=False, separators=(",", ":")).encode()
