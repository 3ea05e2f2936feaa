"""Bodies of Quart requests as contract models."""

from functools import partial

from quart import current_app, request

from llama_orch.http.server.bodies import SMALL_BODY, Model, parsed, read
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.receiving import received


async def body_of(model: type[Model], shape: Shape = SMALL_BODY, limit: int | None = None) -> Model:
    """Parse the body of the current request. Raises ApiError: 413 above `limit` bytes, 400 as `parsed` does."""
    return await read(_QuartSource(), model, shape, limit)


async def body_or(model: type[Model], default: Model) -> Model:
    """Parse the body of the current request; return `default` if it has none."""
    body = await _QuartSource().body(None, SMALL_BODY)
    return parsed(model, body) if body.strip() else default


class _QuartSource:
    """The current Quart request as a Source."""

    async def body(self, limit: int | None = None, shape: Shape | None = None) -> bytearray:
        default: int = current_app.config["MAX_CONTENT_LENGTH"]
        limit = default if limit is None else min(limit, default)
        encoding = request.headers.get("Content-Encoding", "")
        return await received(partial(anext, request.body, None), limit, shape, encoding=encoding)
