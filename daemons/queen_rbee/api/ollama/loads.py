"""Loads and unloads that requests without a prompt ask for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.operations import OperationState
from queen_rbee.api.ollama.names import candidates_of
from queen_rbee.fleet.operations import Operations, OperationTarget
from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.model_lookup import ModelTarget
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.residency.keeper import Keeper
from queen_rbee.residency.operators import OperatorLoads

LOOK_AGAIN_S = 0.25
"""The end of an operation is noted just after the change that ends it."""
UNLOAD_LIMIT_S = 300.0
"""How long an unload is waited for before the model is loaded again in any case."""


class ModelLoads(Protocol):
    """Loads and unloads models."""

    async def load(self, target: ModelTarget, keep_alive: float | None) -> None: ...

    def unload(self, target: ModelTarget) -> None: ...


@dataclass(frozen=True)
class ResidentLoads:
    """The ModelLoads of a queen: by the same operations as POST /v2/pools/{id}/preload and unload."""

    registry: PoolRegistry
    keeper: Keeper
    loads: OperatorLoads
    operations: Operations

    async def load(self, target: ModelTarget, keep_alive: float | None) -> None:
        """Return once one pool of the model is loaded; `keep_alive` (seconds) is in force from then on.

        Raises ApiError if no pool of it can be loaded, or the load fails. A load that was begun goes on if cancelled.
        """
        if not await self._serves(target):
            await self._load(first_to_load(candidates_of(target, self.registry)))
        if keep_alive is not None:
            serving = {key_of(each) for each in candidates_of(target, self.registry) if each.ready}
            for key in serving & self.registry.residents:
                self.keeper.keep(key, keep_alive)

    async def _serves(self, target: ModelTarget) -> bool:
        """Return whether a pool of the model is loaded. One that is about to be unloaded is waited for."""
        began = trio.current_time()
        while True:
            found = candidates_of(target, self.registry)
            if trio.current_time() - began > UNLOAD_LIMIT_S:
                return any(each.serves for each in found)
            if any(each.serves for each in found) or not any(each.held and each.ready for each in found):
                return any(each.serves for each in found)
            with trio.move_on_after(LOOK_AGAIN_S):
                await self.registry.wait_for_change()

    async def _load(self, candidate: Candidate) -> None:
        started = self.loads.load(OperationTarget(candidate.pool_id, candidate.node_id))
        while (operation := self.operations.view(started.operation_id)).state is OperationState.RUNNING:
            with trio.move_on_after(LOOK_AGAIN_S):
                await self.registry.wait_for_change()
        if operation.state is not OperationState.DONE:
            message = f"pool {candidate.pool_id} was not loaded: {operation.message}"
            code = ErrorCode.POOL_UNREADY
            raise ApiError(503, ErrorBody(code=code, message=message, pool_id=candidate.pool_id, retriable=True))

    def unload(self, target: ModelTarget) -> None:
        """Begin to unload every pool of the model that is loaded, once its tasks have ended. Raises ApiError 409."""
        found = candidates_of(target, self.registry)
        for pool_id, node_id in sorted({key_of(each) for each in found if each.ready or each.coming_up}):
            self.loads.unload(OperationTarget(pool_id, node_id or None))


def key_of(candidate: Candidate) -> PoolKey:
    return candidate.pool_id, candidate.node_id or ""


def first_to_load(candidates: Iterable[Candidate]) -> Candidate:
    """Return the replica to load: one that is coming up already, else one that can be loaded. Raises ApiError 503."""
    known = sorted(candidates, key=lambda each: (not each.coming_up, not each.loadable, each.asleep, each.key))
    if known and known[0].available:
        return known[0]
    states = ", ".join(dict.fromkeys(f"{each.pool_id} is {each.state.value}" for each in known))
    message = f"no pool can load the model: {states or 'there is none'}"
    body = ErrorBody(code=ErrorCode.POOL_UNREADY, message=message, hint="See GET /v2/pools.", retriable=True)
    raise ApiError(503, body)
