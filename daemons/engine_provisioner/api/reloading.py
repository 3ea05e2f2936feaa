"""Routes that reload and purge a pool. The progress of a reload is in the pool's report."""

import secrets
from dataclasses import dataclass
from functools import partial

import trio

from engine_provisioner.api.models import checked, disk_error
from engine_provisioner.api.pools import find_managed, refusal
from engine_provisioner.cache.model_cache import ModelCache
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.pools_file import PoolsFileError
from engine_provisioner.spec.replacements import PoolsSource, with_model
from engine_provisioner.supervise.change import Change
from engine_provisioner.supervise.pool_set import PoolSet, ReloadRunning
from engine_provisioner.supervise.purge import PoolBusy, Purges
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.reloads import PoolPurged, PoolReload, ReloadCancel, ReloadOrder, ReloadState, SwitchOrder
from llama_orch.http.server.routes import RequestBody, json_reply, route

ACCEPTED = {202: json_reply("The reload has begun. Progress is in the pool's report.", PoolReload)}
RELOAD = RequestBody(ReloadOrder, {"with another model": {"new_model_ref": "file:/srv/models/m.gguf"}}, optional=True)
SWITCH = RequestBody(SwitchOrder, {"it has no tasks": {"reload_id": "1f", "drained": True}})
CANCEL = RequestBody(ReloadCancel, {"that one": {"reload_id": "1f"}})
PURGED = {200: json_reply("What was freed.", PoolPurged)}


@dataclass(frozen=True)
class Reloading:
    """What the routes need."""

    pools: PoolSet
    source: PoolsSource
    cache: ModelCache
    purges: Purges


class ReloadRoutes:
    """Answers once the pools files have been read for the first time."""

    def __init__(self, parts: Reloading) -> None:
        self._pools = parts.pools
        self._source = parts.source
        self._cache = parts.cache
        self._purges = parts.purges

    @route("POST", "/v2/pools/{pool_id}/reload", "Reload a pool", ACCEPTED, body=RELOAD, errors=(400, 404, 409))
    async def reload_pool(self, order: ReloadOrder, pool_id: str) -> PoolReload:
        find_managed(await self._pools.configured(), pool_id)
        reload_id = order.reload_id or secrets.token_hex(8)
        configured, current = await self._configured(pool_id)
        ref, target = order.new_model_ref, current
        if ref is not None:
            await self._check(ref, pool_id, on_disk=order.on_disk)
            try:
                target = with_model(configured, ref)
            except ValueError as error:
                raise _refused(pool_id, f"pool {pool_id} cannot have the model {model_name(ref)}: {error}") from error
        effective = target.model.ref if target.model else ""
        keep = partial(self._source.replacements.save, configured, effective)
        try:
            self._pools.reload(target, reload_id, keep)
        except ReloadRunning as error:
            hint = "Wait until it has ended, or cancel it while it is staging."
            raise _refused(pool_id, f"pool {pool_id} is being reloaded already", hint) from error
        return PoolReload(reload_id=reload_id, state=ReloadState.STAGING)

    @route("POST", "/v2/pools/{pool_id}/reload/switch", "Say that a pool is drained", ACCEPTED, body=SWITCH)
    async def switch_pool(self, order: SwitchOrder, pool_id: str) -> PoolReload:
        change = await self._change(pool_id, order.reload_id)
        change.claim(drained=order.drained)
        return PoolReload(reload_id=change.id, state=change.state)

    @route("POST", "/v2/pools/{pool_id}/reload/cancel", "Call off a reload", ACCEPTED, body=CANCEL, errors=(404, 409))
    async def cancel_reload(self, cancel: ReloadCancel, pool_id: str) -> PoolReload:
        change = await self._change(pool_id, cancel.reload_id)
        if not change.state.can_be_cancelled:
            message = f"the reload of pool {pool_id} cannot be called off any more: its engine is being replaced"
            raise _refused(pool_id, message, "If the new engine does not start, the former one is started again.")
        change.scope.cancel()
        return PoolReload(reload_id=change.id, state=ReloadState.CANCELLED)

    @route("POST", "/v2/pools/{pool_id}/purge", "Remove what only an unloaded pool uses", PURGED, errors=(404, 409))
    async def purge_pool(self, pool_id: str) -> PoolPurged:
        find_managed(await self._pools.configured(), pool_id)
        try:
            return await self._purges.purge(pool_id)
        except PoolBusy as error:
            hint = f"Unload it first: orchctl unload {pool_id}, or use orchctl purge, which does."
            raise _refused(pool_id, f"pool {pool_id} is not unloaded", hint) from error
        except OSError as error:
            raise disk_error(error) from error

    async def _configured(self, pool_id: str) -> tuple[Pool, Pool]:
        """Return the pool as its file has it, and as it is to be run. Raises ApiError 409."""
        try:
            written = await trio.to_thread.run_sync(self._source.configured, pool_id)
            pools = await trio.to_thread.run_sync(self._source.read) or []
        except PoolsFileError as error:
            raise ApiError(409, refusal(error)) from error
        current = next((pool for pool in pools if pool.id == pool_id), None)
        if written is None or current is None or not current.provisioning.starts_engine:
            hint = "Apply the files: systemctl reload engine-provisioner"
            raise _refused(pool_id, f"pool {pool_id} is not in the pools files as a pool with an engine", hint)
        return written, current

    async def _check(self, ref: str, pool_id: str, *, on_disk: bool) -> None:
        """Raises ApiError: 400 for a malformed reference, 409 for a model that has to be there and is not."""
        checked(ref)
        if on_disk and await self._cache.known(ref) is None:
            message = f"the model {model_name(ref)} is not on the disk of the machine of pool {pool_id}"
            raise _refused(pool_id, message, "Fetch it there: orchctl pull REF. orchctl models --disk lists what is.")

    async def _change(self, pool_id: str, reload_id: str) -> Change:
        find_managed(await self._pools.configured(), pool_id)
        change = self._pools.change(pool_id, reload_id)
        if change is None:
            message = f"pool {pool_id} is not being reloaded under this id"
            body = ErrorBody(code=ErrorCode.NOT_FOUND, message=message, hint="See the pool's report.", pool_id=pool_id)
            raise ApiError(404, body)
        return change


def _refused(pool_id: str, message: str, hint: str = "") -> ApiError:
    body = ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint or None, pool_id=pool_id)
    return ApiError(409, body)
