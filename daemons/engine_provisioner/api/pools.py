"""Routes that load and unload a pool. They set what is wanted; the pool's own task carries it out."""

from collections.abc import Mapping

from engine_provisioner.supervise.wanted import Wanted
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.pools import PoolIntent
from llama_orch.http.server.routes import json_reply, route

ACCEPTED = {202: json_reply("What is wanted now. Progress is in the pool's report.", PoolIntent)}


class PoolRoutes:
    """`wanted` has the pools whose engines this daemon starts; `watched` are the ids of all others."""

    def __init__(self, wanted: Mapping[str, Wanted], watched: frozenset[str]) -> None:
        self._wanted = wanted
        self._watched = watched

    @route("POST", "/v2/pools/{pool_id}/load", "Load a pool", ACCEPTED, errors=(404, 409))
    async def load_pool(self, pool_id: str) -> PoolIntent:
        self._pool(pool_id).load()
        return PoolIntent(pool_id=pool_id, wanted=True)

    @route("POST", "/v2/pools/{pool_id}/unload", "Unload a pool", ACCEPTED, errors=(404, 409))
    async def unload_pool(self, pool_id: str) -> PoolIntent:
        self._pool(pool_id).unload()
        return PoolIntent(pool_id=pool_id, wanted=False)

    def _pool(self, pool_id: str) -> Wanted:
        """Return the wanted state of a pool. Raises ApiError: 404 for an unknown pool, 409 for an external one."""
        if pool_id in self._watched:
            message = f"pool {pool_id} has mode external: its engine is started and stopped elsewhere"
            hint = "Start or stop the engine where it runs, or give the pool another mode in the pools file."
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint, pool_id=pool_id))
        if pool_id not in self._wanted:
            known = ", ".join(sorted(self._wanted)) or "none"
            hint = f"Pools: {known}. The pools file adds others: see llama-orch-pools(5)."
            raise ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message="no such pool here", hint=hint))
        return self._wanted[pool_id]
