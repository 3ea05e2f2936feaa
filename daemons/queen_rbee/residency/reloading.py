"""Reloads and purges that operators ask for, as operations with progress. engine-provisioner carries them out.

A pool of several nodes is reloaded on one after the other, so that the others serve meanwhile.
"""

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import trio
from pydantic import ValidationError

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.operations import Operation, OperationState
from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.contracts.reloads import PoolPurged, PoolReload, ReloadCancel, ReloadOrder, ReloadRequest, ReloadState
from queen_rbee.fleet.managers import PoolManagers
from queen_rbee.fleet.operations import Operations, OperationTarget, Outcome
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.residency.keeper import Keeper
from queen_rbee.residency.operators import NOT_ON_DEMAND

LOST_S = 30.0
"""How long a reload may be missing in the reports of its machine."""
PURGE_LIMIT_S = 90.0
"""Removing large files takes a while."""
REFUSALS = (400, 404, 409)
"""Refusals of pool-managerd that clients can do something about."""
GIB = 1 << 30


@dataclass
class Rolling:
    """A reload of the pools `keys`, one after the other. `current` has the pool and the id of the reload that runs."""

    managers: PoolManagers
    keys: list[PoolKey]
    request: ReloadRequest
    current: tuple[PoolKey, str] | None = None

    async def begin(self, key: PoolKey) -> str:
        """Begin the reload of one pool and return its id. Raises ApiError."""
        reload_id = str(uuid.uuid4())
        order = ReloadOrder(reload_id=reload_id, new_model_ref=self.request.new_model_ref)
        path = f"/v2/pools/{key[0]}/reload"
        await self.managers.post(self.managers.for_pool(key), path, order, passed_on=REFUSALS)
        self.current = key, reload_id
        return reload_id

    async def call_off(self) -> None:
        """Call off the reload that runs. Raises ApiError 409 if it is too late."""
        if self.current is not None:
            key, reload_id = self.current
            path, cancel = f"/v2/pools/{key[0]}/reload/cancel", ReloadCancel(reload_id=reload_id)
            try:
                await self.managers.post(self.managers.for_pool(key), path, cancel, passed_on=REFUSALS)
            except ApiError as error:
                if error.status != 404:  # it has ended
                    raise


@dataclass(frozen=True)
class OperatorReloads:
    """`reload` and `purge` start an operation for a pool, on every node that has it or on one."""

    registry: PoolRegistry
    keeper: Keeper
    operations: Operations

    @property
    def managers(self) -> PoolManagers:
        return self.operations.managers

    async def reload(self, target: OperationTarget, request: ReloadRequest) -> Operation:
        """Prepare the pool anew while it serves, drain it, replace its engine. Raises ApiError 400, 404, 409, 503."""
        keys = self.operations.keys_of(target)
        rolling = Rolling(self.managers, keys, request)
        first = await rolling.begin(keys[0])

        async def follow(show: Callable[[str], None]) -> Outcome:
            outcome = await self._reloaded(keys[0], first, show)
            for number, key in enumerate(keys[1:], 1):
                if outcome[0] is not OperationState.DONE:
                    return outcome[0], f"{outcome[1]}; {len(keys) - number} other nodes were left as they are"
                outcome = await self._reloaded(key, await rolling.begin(key), show)
            return outcome

        return self.operations.follow("reload", target, keys, follow, rolling.call_off)

    async def _reloaded(self, key: PoolKey, reload_id: str, show: Callable[[str], None]) -> Outcome:
        """Show the progress of a reload, and return how it ended."""
        where = f"node {key[1]}: " if key[1] else ""
        watch = Watch(reload_id, lost_at=trio.current_time() + LOST_S)
        while True:
            pool = next(iter(self.registry.find_pools([key])), None)
            leases = self.registry.count_leases(self.registry.replicas_of(key))
            found = watch.look(pool, leases, trio.current_time())
            if not isinstance(found, str):
                return found[0], where + found[1]
            show(where + found)
            with trio.move_on_at(watch.lost_at):
                await self.registry.wait_for_change()

    def purge(self, target: OperationTarget) -> Operation:
        """Unload the pool, then remove what only it uses from the disk. Raises ApiError 404, 409."""
        keys = self.operations.keys_of(target)
        pools = self.registry.find_pools(keys)
        if all(pool.residency is None and pool.state is not PoolState.FAILED for pool in pools):
            message = f"{target} cannot be purged"
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=NOT_ON_DEMAND))
        for key in keys:
            self.keeper.unload(key, "it is to be purged")
            self.keeper.close(key, closed=True)

        async def follow(show: Callable[[str], None]) -> Outcome:
            try:
                return await self._purged(keys, show)
            finally:
                for key in keys:
                    self.keeper.close(key, closed=False)
                    self.keeper.forget(key)

        return self.operations.follow("purge", target, keys, follow)

    async def _purged(self, keys: list[PoolKey], show: Callable[[str], None]) -> Outcome:
        freed, kept = 0, list[str]()
        for key in keys:
            while (pool := next(iter(self.registry.find_pools([key])), None)) is not None and not _is_idle(pool):
                leases = self.registry.count_leases(self.registry.replicas_of(key))
                show(f"{leases} tasks are running" if leases else "its engine is stopping")
                await self.registry.wait_for_change()
            show("removing its files")
            path = f"/v2/pools/{key[0]}/purge"
            body = await self.managers.post(self.managers.for_pool(key), path, limit_s=PURGE_LIMIT_S)
            try:
                purged = PoolPurged.model_validate_json(body)
            except ValidationError:
                return OperationState.FAILED, "pool-managerd sends an unexpected answer"
            freed += purged.freed_bytes
            kept += purged.kept
        left = f"; left: {'; '.join(dict.fromkeys(kept))}" if kept else ""
        return OperationState.DONE, f"{freed / GIB:.2f} GiB freed{left}"


def _is_idle(pool: PoolStatus) -> bool:
    return pool.state in (PoolState.UNLOADED, PoolState.FAILED)


@dataclass
class Watch:
    """What the reports of a pool say about the reload `reload_id`. `lost_at` is when it counts as lost."""

    reload_id: str
    lost_at: float
    seen: bool = field(default=False)

    def look(self, pool: PoolStatus | None, leases: int, now: float) -> Outcome | str:
        """Return how the reload has ended, or its progress."""
        reload = pool.reload if pool and pool.reload and pool.reload.reload_id == self.reload_id else None
        if pool is not None and reload is not None:
            self.seen, self.lost_at = True, math.inf
            return outcome_of(pool, reload) or progress_of(reload, leases)
        if pool is not None and self.seen:
            return OperationState.FAILED, RESTARTED
        if self.lost_at == math.inf:
            self.lost_at = now + LOST_S
        return (OperationState.FAILED, LOST) if now >= self.lost_at else "waiting for its machine"


SEE_POOLS = "the pool has the model that orchctl pools shows"
RESTARTED = f"engine-provisioner was restarted, or its files were changed, meanwhile; {SEE_POOLS}"
LOST = f"its machine has not reported the reload for {LOST_S:g} s; {SEE_POOLS}"


def outcome_of(pool: PoolStatus, reload: PoolReload) -> Outcome | None:
    """Return how a reload has ended. A new engine counts when the pool accepts tasks again."""
    if reload.state is ReloadState.CANCELLED:
        return OperationState.CANCELLED, reload.detail or "called off"
    if reload.state is ReloadState.FAILED:
        return OperationState.FAILED, "; ".join(filter(None, (reload.error, reload.detail)))
    if reload.state is ReloadState.DONE and (pool.ready or pool.state is PoolState.UNLOADED):
        return OperationState.DONE, reload.detail or "the new engine serves"
    return None


def progress_of(reload: PoolReload, leases: int) -> str:
    """Describe a reload that has not ended."""
    if reload.state is ReloadState.STAGED and leases:
        return f"staged: {leases} tasks are running"
    return ": ".join(filter(None, (reload.state.value, reload.detail)))
