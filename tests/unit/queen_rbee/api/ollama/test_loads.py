"""Loads and unloads that requests without a prompt ask for, on an imitated machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.pools import PoolState
from queen_rbee.api.ollama.loads import ResidentLoads
from queen_rbee.pools.model_lookup import ModelTarget
from queen_rbee.residency.operators import OperatorLoads
from tests.unit.queen_rbee.residency.site import LOAD_S, UNLOAD_S, Site, running

MODEL = ModelTarget(model_ref="a.gguf")


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Site, ResidentLoads]]:
    """A machine with two pools of one model."""
    async with running() as site:
        await site.nursery.start(site.operations.run)
        site.add("a", keep_alive_s=300.0)
        site.add("b", model="a", keep_alive_s=300.0)
        operators = OperatorLoads(site.registry, site.keeper, site.operations)
        yield site, ResidentLoads(site.registry, site.keeper, operators, site.operations)


async def test_load_ends_when_one_pool_is_loaded(autojump_clock):
    async with served() as (site, loads):
        await loads.load(MODEL, None)
        assert site.pools["a"].state is PoolState.READY
        await loads.load(MODEL, None)
        assert site.history == ["load a"]


async def test_keep_alive_of_a_load_is_in_force(autojump_clock):
    async with served() as (site, loads):
        await loads.load(MODEL, 50.0)
        await trio.sleep(49.0)
        assert site.history == ["load a"]
        await trio.sleep(5.0)
        assert site.history == ["load a", "unload a"]
        await loads.load(MODEL, -1)
        await trio.sleep(10_000.0)
        assert site.pools["a"].state is PoolState.READY


async def test_unload_is_of_loaded_pools_only(autojump_clock):
    async with served() as (site, loads):
        loads.unload(MODEL)
        await loads.load(MODEL, None)
        loads.unload(MODEL)
        await trio.sleep(UNLOAD_S + 1.0)
        assert site.history == ["load a", "unload a"]


async def test_load_of_model_that_is_being_unloaded_loads_it_again(autojump_clock):
    async with served() as (site, loads):
        await loads.load(MODEL, None)
        loads.unload(MODEL)
        await trio.sleep(UNLOAD_S / 2)
        await loads.load(MODEL, None)
        assert site.history[:2] == ["load a", "unload a"]
        assert any(pool.ready for pool in site.pools.values())


async def test_failed_load_says_why(autojump_clock):
    async with served() as (site, loads):
        site.failing.add("a")
        with pytest.raises(ApiError, match="pool a was not loaded"):
            await loads.load(ModelTarget(pool_id="a"), None)


async def test_client_that_leaves_lets_the_load_go_on(autojump_clock):
    async with served() as (site, loads):
        with trio.move_on_after(LOAD_S / 2):
            await loads.load(MODEL, None)
        await trio.sleep(LOAD_S)
        assert site.pools["a"].state is PoolState.READY
