"""Loads and unloads that operators ask for, as operations with progress. The keeper decides when they happen."""

from collections.abc import Callable
from dataclasses import dataclass

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.operations import Operation, OperationState
from llama_orch.contracts.pools import PoolState, PoolStatus
from queen_rbee.fleet.operations import Follow, Operations, OperationTarget, Outcome
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.residency.keeper import Keeper
from queen_rbee.residency.operator_intents import IntentKind

NOT_ON_DEMAND = "Only pools whose engine engine-provisioner starts can be loaded and unloaded; see llama-orch-pools(5)."


@dataclass(frozen=True)
class OperatorLoads:
    """`load` and `unload` start an operation for a pool, on every node that has it or on one."""

    registry: PoolRegistry
    keeper: Keeper
    operations: Operations

    def load(self, target: OperationTarget) -> Operation:
        """Load the pool, once there is room. A cancel stops a load that no task needs. Raises ApiError 404, 409."""
        keys = self._keys(target)
        for key in keys:
            self.keeper.load(key)

        async def stop() -> None:
            for key in keys:
                self.keeper.stop_load(key)

        return self.operations.follow("load", target, keys, self._until(keys, self._loaded, "load"), stop)

    def unload(self, target: OperationTarget) -> Operation:
        """Unload the pool once its running tasks have ended. The next request loads it. Raises ApiError 404, 409."""
        keys = self._keys(target)
        for key in keys:
            self.keeper.unload(key)

        async def forget() -> None:
            self._forget(keys, "unload")

        return self.operations.follow("unload", target, keys, self._until(keys, self._unloaded, "unload"), forget)

    def _forget(self, keys: list[PoolKey], what: IntentKind) -> None:
        """Drop only what the operation asked for: a newer one may want the opposite by now."""
        for key in keys:
            self.keeper.forget(key, what)

    def _keys(self, target: OperationTarget) -> list[PoolKey]:
        keys = self.operations.keys_of(target)
        if all(pool.residency is None for pool in self.registry.find_pools(keys)):
            message = f"{target} cannot be loaded or unloaded"
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=NOT_ON_DEMAND))
        return keys

    def _until(self, keys: list[PoolKey], outcome: Callable[[PoolStatus], Outcome | str], what: IntentKind) -> Follow:
        """Return what watches pools until `outcome` is one for each of them."""

        async def follow(show: Callable[[str], None]) -> Outcome:
            while True:
                found = [outcome(pool) for pool in self.registry.find_pools(keys)]
                waiting = [each for each in found if isinstance(each, str)]
                if not waiting:
                    self._forget(keys, what)
                    return _worst([each for each in found if not isinstance(each, str)])
                show("; ".join(waiting))
                await self.registry.wait_for_change()

        return follow

    def _loaded(self, pool: PoolStatus) -> Outcome | str:
        """Return how the load of `pool` ended, or what it waits for."""
        if pool.ready:
            return OperationState.DONE, "it is loaded"
        if pool.state is PoolState.FAILED:
            return OperationState.FAILED, pool.last_error or "the engine failed"
        if pool.state is PoolState.UNLOADED:
            return self.keeper.blocker((pool.pool_id, pool.node_id or "")) or "waiting for its turn"
        if pool.state is PoolState.ASLEEP:
            return "its node is being woken"
        return pool.last_error or f"it is {pool.state.value}"

    def _unloaded(self, pool: PoolStatus) -> Outcome | str:
        if pool.state is PoolState.UNLOADED:
            return OperationState.DONE, "it is unloaded; its memory is free"
        if pool.state is PoolState.ASLEEP:
            return OperationState.DONE, "its node is asleep"
        if pool.state is PoolState.FAILED:
            return OperationState.DONE, "its engine does not run"
        leases = self.registry.count_leases(self.registry.replicas_of((pool.pool_id, pool.node_id or "")))
        return f"{leases} tasks are running" if leases else "its engine is stopping"


def _worst(outcomes: list[Outcome]) -> Outcome:
    if not outcomes:
        return OperationState.FAILED, "the pool does not exist any more"
    return next((outcome for outcome in outcomes if outcome[0] is OperationState.FAILED), outcomes[0])
