"""Operations that load pools: a cancel stops a load that nobody else needs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from llama_orch.contracts.operations import OperationState
from llama_orch.contracts.pools import PoolState
from queen_rbee.fleet.operations import Operations, OperationTarget
from queen_rbee.residency.operators import OperatorLoads
from tests.unit.queen_rbee.residency.site import LOAD_S, UNLOAD_S, Orders, Site, running


@asynccontextmanager
async def operated() -> AsyncIterator[tuple[Site, OperatorLoads]]:
    async with running() as site:
        operations = Operations(site.registry, Orders(site), lambda _keys, _reason: 0)
        await site.nursery.start(operations.run)
        site.add("a")
        yield site, OperatorLoads(site.registry, site.keeper, operations)


async def test_cancel_of_a_running_load_unloads_the_pool(autojump_clock):
    async with operated() as (site, loads):
        operation = loads.load(OperationTarget("a"))
        await trio.sleep(LOAD_S / 2)
        await loads.operations.cancel(operation.operation_id)
        await trio.sleep(LOAD_S + UNLOAD_S)
        assert loads.operations.view(operation.operation_id).state is OperationState.CANCELLED
        assert site.history == ["load a", "unload a"]
        assert site.pools["a"].state is PoolState.UNLOADED


async def test_cancel_of_a_load_that_has_ended_changes_nothing(autojump_clock):
    async with operated() as (site, loads):
        operation = loads.load(OperationTarget("a"))
        await trio.sleep(LOAD_S + 1.0)
        await loads.operations.cancel(operation.operation_id)
        await trio.sleep(LOAD_S)
        assert site.history == ["load a"]


async def test_cancel_of_a_load_that_tasks_need_lets_it_go_on(autojump_clock):
    async with operated() as (site, loads), trio.open_nursery() as clients:
        operation = loads.load(OperationTarget("a"))
        clients.start_soon(site.request, "a")
        await trio.sleep(LOAD_S / 2)
        await loads.operations.cancel(operation.operation_id)
        await trio.sleep(LOAD_S + 1.0)
        assert site.history == ["load a", "serve a"]
