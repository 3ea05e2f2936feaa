"""Routes on pools. They set what is wanted; the pool's own task carries it out."""

from collections.abc import Mapping

from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.pools_file import PoolsFileError
from engine_provisioner.supervise.pool_set import PoolSet
from engine_provisioner.supervise.reloads import Reloads
from engine_provisioner.supervise.wanted import Wanted
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.contracts.pools import PoolIntent, PoolsReload
from llama_orch.http.server.routes import json_reply, route

ACCEPTED = {202: json_reply("What is wanted now. Progress is in the pool's report.", PoolIntent)}
RELOADED = {200: json_reply("The files are read and applied. Progress is in the pools' reports.", PoolsReload)}


class PoolRoutes:
    """Answers once the pools files have been read for the first time."""

    def __init__(self, pools: PoolSet, reloads: Reloads) -> None:
        self._pools = pools
        self._reloads = reloads

    @route("POST", "/v2/pools/{pool_id}/load", "Load a pool", ACCEPTED, errors=(404, 409))
    async def load_pool(self, pool_id: str) -> PoolIntent:
        (await self._wanted(pool_id)).load()
        return PoolIntent(pool_id=pool_id, wanted=True)

    @route("POST", "/v2/pools/{pool_id}/unload", "Unload a pool", ACCEPTED, errors=(404, 409))
    async def unload_pool(self, pool_id: str) -> PoolIntent:
        (await self._wanted(pool_id)).unload()
        return PoolIntent(pool_id=pool_id, wanted=False)

    @route("POST", "/v2/pools/reload", "Read the pools files again", RELOADED, errors=(409,))
    async def reload_pools(self) -> PoolsReload:
        try:
            changes = await self._reloads.reload()
        except PoolsFileError as error:
            raise ApiError(409, refusal(error)) from error
        return PoolsReload(
            kept=list(changes.kept),
            changed=list(changes.changed),
            added=list(changes.added),
            removed=list(changes.removed),
        )

    async def _wanted(self, pool_id: str) -> Wanted:
        """Return the wanted state of a pool. Raises ApiError: 404 for an unknown pool, 409 for an external one."""
        find_managed(await self._pools.configured(), pool_id)
        return self._pools.wanted(pool_id)


def find_managed(pools: Mapping[str, Pool], pool_id: str) -> Pool:
    """Return a pool whose engine this daemon starts. Raises ApiError: 404 for an unknown, 409 for an external one."""
    pool = pools.get(pool_id)
    if pool is None:
        managed = sorted(each.id for each in pools.values() if each.provisioning.starts_engine)
        hint = f"Pools: {', '.join(managed) or 'none'}. The pools files add others: see llama-orch-pools(5)."
        raise ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message="no such pool here", hint=hint))
    if not pool.provisioning.starts_engine:
        message = f"pool {pool_id} has mode external: its engine is started and stopped elsewhere"
        hint = "Start or stop the engine where it runs, or give the pool another mode in the pools file."
        raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint, pool_id=pool_id))
    return pool


def refusal(error: PoolsFileError) -> ErrorBody:
    """Return the answer for files that cannot be used, with each problem."""
    return ErrorBody(
        code=ErrorCode.INVALID_PARAMS,
        message="\n  ".join(["pools files refused, nothing has changed:", *map(str, error.problems)]),
        hint="See llama-orch-pools(5).",
        fields=[
            FieldProblem(field=problem.key or str(problem.path), problem=str(problem)) for problem in error.problems
        ],
    )
