"""Bodies of Quart's requests, as models of the contracts."""

from dataclasses import dataclass
from functools import partial

from quart import current_app, request

from llama_orch.http.server.bodies import FEW, Model, parsed, read
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.receiving import received


async def body_of(model: type[Model], shape: Shape = FEW, limit: int | None = None) -> Model:
    """The body of Quart's current request. Raises ApiError: 413 beyond `limit` bytes, 400 as `parsed` does."""
    return await read(_Posted(), model, shape, limit)


async def body_or(model: type[Model], default: Model) -> Model:
    """Likewise; `default` where there is none."""
    body = await _Posted().body(None, FEW)
    return parsed(model, body) if body.strip() else default


@dataclass(frozen=True)
class _Posted:
    """Quart's current request."""

    async def body(self, limit: int | None = None, shape: Shape | None = None) -> bytearray:
        own: int = current_app.config["MAX_CONTENT_LENGTH"]
        limit = own if limit is None else min(limit, own)
        encoding = request.headers.get("Content-Encoding", "")
        return await received(partial(anext, request.body, None), limit, shape, encoding=encoding)
