"""Drain pools whose reload is staged, and have their engines replaced once they have no task."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import trio

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.pools import PoolStatus
from llama_orch.contracts.reloads import ReloadState, SwitchOrder
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.fleet.managers import PoolManagers
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.source_reports import PoolKey

RETRY_S = 1.0


def held(pools: Mapping[PoolKey, PoolStatus]) -> set[PoolKey]:
    """Return the pools that get no new tasks, because their engines are being replaced."""
    return {key for key, pool in pools.items() if pool.reload and pool.reload.state.holds_pool}


def due(pools: Mapping[PoolKey, PoolStatus], busy: Iterable[PoolKey]) -> dict[PoolKey, SwitchOrder]:
    """Return what to say about each pool with a staged reload: that it is drained, or being drained if it is `busy`."""
    return {
        key: SwitchOrder(reload_id=pool.reload.reload_id, drained=key not in busy)
        for key, pool in pools.items()
        if pool.reload and pool.reload.state is ReloadState.STAGED
    }


@dataclass
class Switches:
    """What has been said about staged reloads. Owned by the keeper, which calls `step` when something has changed."""

    registry: PoolRegistry
    managers: PoolManagers
    _said: dict[PoolKey, SwitchOrder] = field(default_factory=dict)

    def step(self, pools: Mapping[PoolKey, PoolStatus], nursery: trio.Nursery) -> None:
        """Say what is due and was not said before. The pools must be held already."""
        busy = {key for key in pools if self.registry.count_leases(self.registry.replicas_of(key))}
        orders = due(pools, busy)
        self._said = {key: order for key, order in self._said.items() if key in orders}
        for key, order in orders.items():
            if self._said.get(key) != order:
                self._said[key] = order
                nursery.start_soon(self._say, key, order)

    async def _say(self, key: PoolKey, order: SwitchOrder) -> None:
        fields = {"pool_id": key[0], "node_id": key[1] or None}
        try:
            await self.managers.post(self.managers.for_pool(key), f"/v2/pools/{key[0]}/reload/switch", order)
        except ApiError as error:
            emit(events.RESIDENCY_FAILED, **fields, verb="reload", reason=error.body.message)
            await trio.sleep(RETRY_S)
            if self._said.get(key) == order:
                del self._said[key]
            self.registry.residency.ring()
        else:
            if order.drained:
                emit(events.SWITCH_ORDERED, **fields)
