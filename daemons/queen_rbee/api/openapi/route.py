"""GET /openapi.json: the description of this API, made when it is first asked for and kept from then on."""

import json

import trio
from quart import Response
from quart_trio import QuartTrio


class Description:
    """The document as it is served; None until somebody has asked."""

    def __init__(self) -> None:
        self._document: bytes | None = None

    async def document(self) -> bytes:
        """The document. Two that ask at once may both have it made."""
        if self._document is None:
            self._document = await trio.to_thread.run_sync(_made)
        return self._document


def _made() -> bytes:
    from queen_rbee.api.openapi.document import openapi

    return json.dumps(openapi(), ensure_ascii=False, separators=(",", ":")).encode()


def add_description(app: QuartTrio) -> None:
    """Add the route to `app`."""
    description = Description()

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return Response(await description.document(), content_type="application/json")
