"""The one owner of pools: what it takes, replaces, forgets, and whom it tells."""

from typing import Any

import pytest
import trio
import trio.testing

from llama_orch.contracts.pools import PoolState
from llama_orch.spool import HandoffFile
from pool_managerd.pools.devices import Gpus
from pool_managerd.pools.registry import FORGET_AFTER_S, Registry
from pool_managerd.pools.replica import Sighting
from tests.unit.pool_managerd.values import GONE, LOADING, READY, SILENT, TWO_GPUS, found, report


def registry(**fields: Any) -> Registry:
    """A registry that has taken one engine."""
    pools = Registry()
    pools.take(found(**fields))
    return pools


def incarnation(pools: Registry) -> int:
    return pools.replicas[-1].incarnation


async def test_a_newer_announcement_takes_the_place_of_the_older() -> None:
    pools = registry()
    old = incarnation(pools)
    pools.saw(old, READY)
    pools.take(found(port=18081))
    (replica,) = pools.replicas
    assert (replica.handoff.url, replica.state) == ("http://127.0.0.1:18081", PoolState.STARTING)
    assert pools.saw(old, READY) is None
    assert pools.replicas == (replica,)


@pytest.mark.parametrize(
    ("look", "ready"), [(None, True), (READY, True), (SILENT, True), (LOADING, False), (GONE, False)]
)
async def test_a_ready_engine_that_is_announced_again_stays_ready_unless_it_says_otherwise(
    look: Sighting | None, ready: bool
) -> None:
    pools = registry()
    pools.saw(incarnation(pools), READY)
    old, said = incarnation(pools), pools.pools
    pools.take(found(inode=2), look)
    assert incarnation(pools) != old
    assert [pool.ready for pool in pools.pools] == [ready]
    assert look not in (None, READY) or pools.pools == said


async def test_of_an_engine_that_is_announced_again_the_announcement_is_believed() -> None:
    pools = registry(slots_total=4, model={"id": "old", "path": "/old", "ctx_max": 512})
    pools.saw(incarnation(pools), READY)
    pools.take(found(slots_total=2, model={"id": "new", "path": "/new", "ctx_max": 256}))
    (pool,) = pools.pools
    assert (pool.ready, pool.slots_total, pool.models_available, pool.ctx_max) == (True, 2, ["new"], 256)


async def test_an_engine_that_was_offline_has_ten_minutes_more_when_it_is_announced_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pools = registry()
    for look in (READY, GONE, GONE, GONE):
        pools.saw(incarnation(pools), look)
    await trio.sleep(FORGET_AFTER_S)
    pools.take(found(inode=2), GONE)
    assert not pools.forget_gone()
    assert pools.pools[0].state is PoolState.STARTING


async def test_engines_are_known_again_in_the_order_in_which_they_were_announced() -> None:
    pools = registry(replica_id="r0", engine="vllm")
    pools.take(found(replica_id="r1", port=18081))
    pools.take(found(replica_id="r0", engine="vllm"))
    again = Registry()
    again.restore(HandoffFile(replica.handoff, replica.identity) for replica in pools.replicas)
    assert [each.pools[0].engine for each in (pools, again)] == ["vllm", "vllm"]


async def test_an_address_belongs_to_the_engine_that_was_announced_last() -> None:
    pools = registry(pool_id="old")
    pools.take(found(pool_id="new"))
    assert [pool.pool_id for pool in pools.pools] == ["new"]


async def test_each_change_of_what_is_said_raises_the_revision_and_nothing_else_does() -> None:
    pools = registry()
    before = pools.revision
    pools.saw(incarnation(pools), READY)
    pools.saw(incarnation(pools), READY)
    assert pools.revision == before + 1


async def test_a_revision_is_not_met_again_after_a_restart() -> None:
    first = registry()
    await trio.sleep(0.01)
    assert Registry().revision > first.revision


async def test_who_waits_is_woken_by_a_change(autojump_clock: trio.testing.MockClock) -> None:
    pools = registry()
    woken: list[int] = []

    async def wait() -> None:
        await pools.changed(pools.revision)
        woken.append(pools.revision)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not woken
        pools.saw(incarnation(pools), READY)
    assert woken == [pools.revision]


async def test_an_older_revision_is_answered_at_once() -> None:
    pools = registry()
    with trio.fail_after(1):
        await pools.changed(pools.revision - 1)


async def test_an_engine_that_is_offline_is_kept_for_ten_minutes(autojump_clock: trio.testing.MockClock) -> None:
    pools = registry()
    for look in (READY, GONE, GONE, GONE):
        pools.saw(incarnation(pools), look)
    await trio.sleep(FORGET_AFTER_S - 1)
    assert not pools.forget_gone()
    await trio.sleep(1)
    assert pools.forget_gone()
    assert pools.pools == ()


async def test_an_engine_that_came_back_is_not_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    pools = registry()
    for look in (GONE, GONE, GONE, READY):
        pools.saw(incarnation(pools), look)
    await trio.sleep(FORGET_AFTER_S)
    assert not pools.forget_gone()


async def test_a_pool_that_the_provisioner_still_reports_on_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    pools = registry()
    pools.set_reports({"default": report(PoolState.STARTING)})
    for _look in range(3):
        pools.saw(incarnation(pools), GONE)
    await trio.sleep(FORGET_AFTER_S)
    assert not pools.forget_gone()
    pools.set_reports({})
    assert pools.forget_gone()


async def test_a_pool_on_a_gpu_that_falls_off_the_bus_is_failed_and_comes_back_with_it() -> None:
    pools = Registry()
    pools.set_gpus(TWO_GPUS)
    pools.take(found(device_mask="1"))
    pools.saw(incarnation(pools), READY)
    pools.set_gpus(Gpus(TWO_GPUS.devices[:1]))
    pool = pools.pool("default")
    assert pool
    assert (pool.state, pool.ready) == (PoolState.FAILED, False)
    assert pool.last_error == "device_mask 1 names GPU 1, which this machine does not have (it has: 0)"
    pools.set_gpus(TWO_GPUS)
    assert pools.pools[0].ready


async def test_a_pool_on_gpus_is_not_ready_before_they_have_been_looked_at() -> None:
    pools = registry(device_mask="0")
    pools.saw(incarnation(pools), READY)
    assert not pools.pools[0].ready


@pytest.mark.parametrize("announced_again", [False, True])
async def test_a_pool_of_the_last_run_is_ready_though_a_slow_driver_has_yet_to_tell_of_its_gpu(
    announced_again: bool,
) -> None:
    pools = Registry()
    pools.restore([found(device_mask="1")])
    if announced_again:
        pools.take(found(device_mask="1"), READY)
    pools.saw(incarnation(pools), READY)
    assert pools.pools[0].ready
    pools.set_gpus(TWO_GPUS)
    assert pools.pools[0].ready
    pools.set_gpus(Gpus(problem="NVML has not answered for 10 s"))
    assert pools.pools[0].state is PoolState.FAILED


async def test_engines_of_the_last_run_are_waited_for_until_each_has_been_seen() -> None:
    pools = Registry()
    pools.restore([found(), found(pool_id="other", port=18081)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pools.engines_seen)
        for replica, look in zip(pools.replicas, (READY, GONE), strict=True):
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            pools.saw(replica.incarnation, look)


@pytest.mark.parametrize(
    ("looks", "lines"),
    [
        ((READY, READY), ["is ready"]),
        ((READY, GONE, GONE, GONE, GONE), ["is ready", "is not ready: the engine is gone"]),
        ((READY, SILENT, READY), ["is ready"]),
        ((GONE, GONE, GONE, GONE), ["is not ready: the engine is gone"]),
    ],
)
async def test_the_log_says_each_turn_once(
    looks: tuple[Sighting, ...], lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pools = registry()
    caplog.clear()
    for look in looks:
        pools.saw(incarnation(pools), look)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(lines)
    assert all(line in text for line, text in zip(lines, said, strict=True))
