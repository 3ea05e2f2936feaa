"""Routes of pools: their list with a long poll, their status, and the relay to their engines."""

from functools import partial

import trio
from quart import request

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.pools import PoolList, PoolStatus
from llama_orch.http.server.bodies import invalid
from llama_orch.http.server.exchange import Exchange
from llama_orch.http.server.routes import Parameter, Reply, Schema, gate_route, json_reply, route
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.relay.relay import Relay
from pool_managerd.wait_any import wait_any

WAIT_LIMIT_MS = 30_000
NUMBER: Schema = {"type": "integer", "minimum": 0}
LIST = {200: json_reply("The pools.", PoolList)}
LONG_POLL = (
    Parameter("after", "A revision: respond when the list has a later one.", NUMBER),
    Parameter("wait_ms", "Milliseconds to wait for it.", {**NUMBER, "maximum": WAIT_LIMIT_MS}),
)
STATUS = {200: json_reply("The pool.", PoolStatus)}


class PoolRoutes:
    """Once `stop` is set, long polls return at once."""

    def __init__(self, registry: NodePools, stop: trio.Event) -> None:
        self._registry = registry
        self._stop = stop

    @route("GET", "/v2/pools", "List pools", LIST, parameters=LONG_POLL)
    @route("GET", "/pools", "Same as GET /v2/pools", LIST, parameters=LONG_POLL, name="list_pools_bare")
    async def list_pools(self) -> PoolList:
        registry = self._registry
        after = query_number("after", request.args.get("after"), 2**63)
        wait_ms = query_number("wait_ms", request.args.get("wait_ms"), WAIT_LIMIT_MS)
        if after is not None and wait_ms:
            with trio.move_on_after(wait_ms / 1000):
                await wait_any(partial(registry.changed, after), self._stop.wait)
        pools = list(registry.pools)
        return PoolList(pools=pools, count=len(pools), revision=registry.revision, memory=registry.memory)

    @route("GET", "/v2/pools/{pool_id}/status", "Get a pool", STATUS)
    @route("GET", "/pools/{pool_id}/status", "Same as GET /v2/pools/{pool_id}/status", STATUS, name="get_pool_bare")
    async def get_pool(self, pool_id: str) -> PoolStatus:
        pool = self._registry.pool(pool_id)
        if pool is None:
            raise no_such_pool(self._registry)
        return pool


class EngineRoutes:
    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    @gate_route(
        "ANY",
        "/v2/pools/{pool_id}/engine/{path...}",
        "Relay to an engine",
        {200: Reply("The engine's response.")},
        traced=True,
    )
    async def relay_to_engine(self, exchange: Exchange) -> None:
        await self._relay(exchange)


def no_such_pool(registry: NodePools) -> ApiError:
    """Return the 404 for an unknown pool, which lists the known ones."""
    known = ", ".join(pool.pool_id for pool in registry.pools) or "none"
    return ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message="no such pool here", hint=f"Pools: {known}."))


def query_number(name: str, text: str | None, limit: int) -> int | None:
    """Parse a query parameter as an integer from 0 to `limit`; None if it is absent. Raises ApiError 400."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= limit:
        return int(text)
    raise ApiError(400, invalid([(name, f"must be an integer from 0 to {limit}")]))
