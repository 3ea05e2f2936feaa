"""Reloads and purges: a pool is drained before its engine is replaced, and no task is lost."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.operations import Operation, OperationState
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.reloads import PoolReload, ReloadRequest, ReloadState
from queen_rbee.fleet.operations import OperationTarget
from queen_rbee.residency.reloading import LOST_S, Watch
from tests.unit.queen_rbee.residency.site import LOAD_S, UNLOAD_S, Site, running

POOL = OperationTarget("a")
AS_IT_IS = ReloadRequest()


async def ended(site: Site, operation: Operation) -> Operation:
    with trio.fail_after(1000.0):
        # the mock clock jumps
        while (found := site.operations.view(operation.operation_id)).state is OperationState.RUNNING:  # noqa: ASYNC110
            await trio.sleep(0.1)
    return found


async def test_idle_pool_is_switched_and_serves_again(autojump_clock):
    async with running() as site:
        site.add("a", state=PoolState.READY)
        found = await ended(site, await site.reloads.reload(POOL, AS_IT_IS))
        assert (found.kind, found.state) == ("reload", OperationState.DONE)
        assert site.history == ["reload a", "switch a"]
        await site.request("a")


async def test_running_tasks_end_and_new_ones_wait(autojump_clock):
    async with running() as site, trio.open_nursery() as clients:
        site.add("a", state=PoolState.READY)
        clients.start_soon(site.request, "a", 20.0)
        await trio.sleep(1.0)
        operation = await site.reloads.reload(POOL, AS_IT_IS)
        await trio.sleep(1.0)
        clients.start_soon(site.request, "a")
        await trio.sleep(1.0)
        assert site.history == ["serve a", "reload a", "claim a"]
        assert site.operations.view(operation.operation_id).message == "staged: 1 tasks are running"
        assert (await ended(site, operation)).state is OperationState.DONE
    assert site.history == ["serve a", "reload a", "claim a", "switch a", "serve a"]


async def test_failed_reload_ends_with_the_cause(autojump_clock):
    async with running() as site:
        site.add("a", state=PoolState.READY)
        site.failure = "the engine ended with status 1"
        found = await ended(site, await site.reloads.reload(POOL, AS_IT_IS))
        assert (found.state, found.message) == (OperationState.FAILED, "the engine ended with status 1")
        await site.request("a")


async def test_reload_that_somebody_else_began_is_drained_too(autojump_clock):
    async with running() as site:
        site.add("a", state=PoolState.READY)
        site.reload("a", ReloadState.STAGED, "files")
        await trio.sleep(LOAD_S + 1.0)
        assert site.history == ["switch a"]
        assert site.pools["a"].ready


async def test_cancel_calls_the_reload_off_on_its_machine(autojump_clock):
    async with running() as site, trio.open_nursery() as clients:
        site.add("a", state=PoolState.READY)
        clients.start_soon(site.request, "a", 20.0)
        await trio.sleep(1.0)
        operation = await site.reloads.reload(POOL, AS_IT_IS)
        await trio.sleep(1.0)
        await site.operations.cancel(operation.operation_id)
        assert (await ended(site, operation)).state is OperationState.CANCELLED
        await trio.sleep(0.1)
        await site.request("a")
    assert site.history == ["serve a", "reload a", "claim a", "cancel a", "serve a"]


async def test_refused_reload_starts_no_operation(autojump_clock):
    async with running() as site:
        site.add("a", state=PoolState.READY)
        site.refusing.add("a")
        with pytest.raises(ApiError, match="cannot connect"):
            await site.reloads.reload(POOL, AS_IT_IS)
        assert site.operations.views() == []


async def test_idle_pool_is_not_unloaded_while_it_is_reloaded(autojump_clock):
    async with running() as site, trio.open_nursery() as clients:
        site.add("a", state=PoolState.READY, keep_alive_s=5.0)
        site.add("b")
        clients.start_soon(site.request, "a", 60.0)
        await trio.sleep(1.0)
        operation = await site.reloads.reload(POOL, AS_IT_IS)
        assert (await ended(site, operation)).state is OperationState.DONE
    assert "unload a" not in site.history


async def test_purge_unloads_first_and_loads_nothing_meanwhile(autojump_clock):
    async with running() as site, trio.open_nursery() as clients:
        site.add("a", state=PoolState.READY)
        operation = site.reloads.purge(POOL)
        await wait_all_tasks_blocked()
        clients.start_soon(site.request, "a")
        found = await ended(site, operation)
        assert (found.state, found.message) == (OperationState.DONE, "1.00 GiB freed; left: the engine: used by b")
        await trio.sleep(UNLOAD_S)
    assert site.history == ["unload a", "purge a", "load a", "serve a"]


def test_reload_that_vanishes_was_ended_by_a_restart(autojump_clock):
    site = Site()
    site.add("a", state=PoolState.READY)
    pool = site.pools["a"]
    staging = PoolReload(reload_id="one", state=ReloadState.STAGING, detail="downloading")
    watch = Watch("one", lost_at=LOST_S)
    assert watch.look(pool, 0, 0.0) == "waiting for its machine"
    assert watch.look(pool.model_copy(update={"reload": staging}), 0, 1.0) == "staging: downloading"
    outcome = watch.look(pool, 0, 2.0)
    assert outcome[0] is OperationState.FAILED
    assert "engine-provisioner was restarted" in outcome[1]


def test_reload_that_is_never_reported_is_lost():
    watch = Watch("one", lost_at=LOST_S)
    assert watch.look(None, 0, LOST_S - 1) == "waiting for its machine"
    assert watch.look(None, 0, LOST_S)[0] is OperationState.FAILED
