"""GET /v2/pools with its long poll, the status of one pool, the GPUs, and the request to look for handoffs."""

from dataclasses import asdict
from functools import partial
from typing import Any

import trio
from quart import request
from quart_trio import QuartTrio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.pools import PoolList
from llama_orch.http.server.bodies import invalid
from pool_managerd.handoffs.handoffs import HandoffLoop
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.wait_any import wait_any

WAIT_LIMIT_MS = 30_000


def add_routes(app: QuartTrio, registry: NodePools, handoffs: HandoffLoop, stop: trio.Event) -> None:
    """Mount pool-managerd's own routes on `app`; once `stop` is set no long poll waits any more."""

    @app.get("/v2/pools")
    @app.get("/pools")
    async def pools() -> dict[str, Any]:
        after = whole("after", request.args.get("after"), 2**63)
        wait_ms = whole("wait_ms", request.args.get("wait_ms"), WAIT_LIMIT_MS)
        if after is not None and wait_ms:
            with trio.move_on_after(wait_ms / 1000):
                await wait_any(partial(registry.changed, after), stop.wait)
        listed = PoolList(pools=list(registry.pools), count=len(registry.pools), revision=registry.revision)
        return listed.model_dump(mode="json")

    @app.get("/v2/pools/<pool_id>/status")
    @app.get("/pools/<pool_id>/status")
    async def status(pool_id: str) -> dict[str, Any]:
        pool = registry.pool(pool_id)
        if pool is None:
            raise no_such_pool(registry)
        return pool.model_dump(mode="json")

    @app.get("/v2/gpus")
    async def gpus() -> dict[str, Any]:
        devices = [asdict(gpu) for gpu in registry.gpus.devices]
        return {"gpus": devices, "count": len(devices), "problem": registry.gpus.problem}

    @app.post("/v2/handoff/scan")
    async def scan() -> tuple[str, int]:
        await handoffs.scan()
        return "", 204


def no_such_pool(registry: NodePools) -> ApiError:
    """404 that says which pools there are."""
    known = ", ".join(pool.pool_id for pool in registry.pools) or "none"
    return ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message="no such pool here", hint=f"Pools: {known}."))


def whole(name: str, text: str | None, limit: int) -> int | None:
    """The query parameter `name` as a number from 0 to `limit`. Raises ApiError 400."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= limit:
        return int(text)
    raise ApiError(400, invalid([(name, f"must be a whole number from 0 to {limit}")]))
