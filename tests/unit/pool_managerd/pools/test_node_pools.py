"""The node's pools: announcements, restarts, probes, revisions, log."""

from typing import Any

import pytest
import trio
import trio.testing

from llama_orch.contracts.pools import PoolState
from llama_orch.spool.handoffs import HandoffFile
from pool_managerd.pools.devices import Gpus
from pool_managerd.pools.memory import MachineMemory
from pool_managerd.pools.node_pools import FORGET_AFTER_S, NodePools
from pool_managerd.pools.pool_status import DrainState
from pool_managerd.pools.replica import ProbeResult
from tests.unit.pool_managerd.values import GONE, LOADING, READY, SILENT, TWO_GPUS, found, report


def registry(**fields: Any) -> NodePools:
    """Pools with one announced engine."""
    pools = NodePools()
    pools.take(found(**fields))
    return pools


def incarnation(pools: NodePools) -> int:
    return pools.replicas[-1].incarnation


async def test_newer_announcement_replaces_the_older() -> None:
    pools = registry()
    old = incarnation(pools)
    pools.apply_probe(old, READY)
    pools.take(found(port=18081))
    (replica,) = pools.replicas
    assert (replica.handoff.url, replica.state) == ("http://127.0.0.1:18081", PoolState.STARTING)
    assert pools.apply_probe(old, READY) is None
    assert pools.replicas == (replica,)


@pytest.mark.parametrize(
    ("look", "ready"), [(None, True), (READY, True), (SILENT, True), (LOADING, False), (GONE, False)]
)
async def test_reannounced_ready_engine_stays_ready(look: ProbeResult | None, ready: bool) -> None:
    pools = registry()
    pools.apply_probe(incarnation(pools), READY)
    old, statuses = incarnation(pools), pools.pools
    pools.take(found(inode=2), look)
    assert incarnation(pools) != old
    assert [pool.ready for pool in pools.pools] == [ready]
    assert look not in (None, READY) or pools.pools == statuses


async def test_new_announcement_updates_the_engine() -> None:
    pools = registry(slots_total=4, model={"id": "old", "path": "/old", "ctx_max": 512})
    pools.apply_probe(incarnation(pools), READY)
    pools.take(found(slots_total=2, model={"id": "new", "path": "/new", "ctx_max": 256}))
    (pool,) = pools.pools
    assert (pool.ready, pool.slots_total, pool.models_available, pool.ctx_max) == (True, 2, ["new"], 256)


async def test_reannounced_offline_engine_gets_10_more_minutes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pools = registry()
    for look in (READY, GONE, GONE, GONE):
        pools.apply_probe(incarnation(pools), look)
    await trio.sleep(FORGET_AFTER_S)
    pools.take(found(inode=2), GONE)
    assert not pools.forget_gone()
    assert pools.pools[0].state is PoolState.STARTING


async def test_engines_are_restored_in_order_of_announcement() -> None:
    pools = registry(replica_id="r0", engine="vllm")
    pools.take(found(replica_id="r1", port=18081))
    pools.take(found(replica_id="r0", engine="vllm"))
    again = NodePools()
    again.restore(HandoffFile(replica.handoff, replica.identity) for replica in pools.replicas)
    assert [each.pools[0].engine for each in (pools, again)] == ["vllm", "vllm"]


async def test_address_belongs_to_the_last_announced_engine() -> None:
    pools = registry(pool_id="old")
    pools.take(found(pool_id="new"))
    assert [pool.pool_id for pool in pools.pools] == ["new"]


async def test_only_status_changes_increment_the_revision() -> None:
    pools = registry()
    before = pools.revision
    pools.apply_probe(incarnation(pools), READY)
    pools.apply_probe(incarnation(pools), READY)
    assert pools.revision == before + 1


async def test_revisions_do_not_recur_after_a_restart() -> None:
    first = registry()
    await trio.sleep(0.01)
    assert NodePools().revision > first.revision


async def test_waiter_is_woken_by_a_change(autojump_clock: trio.testing.MockClock) -> None:
    pools = registry()
    woken: list[int] = []

    async def wait() -> None:
        await pools.changed(pools.revision)
        woken.append(pools.revision)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not woken
        pools.apply_probe(incarnation(pools), READY)
    assert woken == [pools.revision]


async def test_wait_with_an_older_revision_returns_immediately() -> None:
    pools = registry()
    with trio.fail_after(1):
        await pools.changed(pools.revision - 1)


async def test_offline_engine_is_kept_for_10_minutes(autojump_clock: trio.testing.MockClock) -> None:
    pools = registry()
    for look in (READY, GONE, GONE, GONE):
        pools.apply_probe(incarnation(pools), look)
    await trio.sleep(FORGET_AFTER_S - 1)
    assert not pools.forget_gone()
    await trio.sleep(1)
    assert pools.forget_gone()
    assert pools.pools == ()


async def test_returned_engine_is_not_dropped(autojump_clock: trio.testing.MockClock) -> None:
    pools = registry()
    for look in (GONE, GONE, GONE, READY):
        pools.apply_probe(incarnation(pools), look)
    await trio.sleep(FORGET_AFTER_S)
    assert not pools.forget_gone()


async def test_pool_with_a_report_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    pools = registry()
    pools.set_reports({"default": report(PoolState.STARTING)})
    for _look in range(3):
        pools.apply_probe(incarnation(pools), GONE)
    await trio.sleep(FORGET_AFTER_S)
    assert not pools.forget_gone()
    pools.set_reports({})
    assert pools.forget_gone()


async def test_pool_fails_with_its_gpu_and_recovers() -> None:
    pools = NodePools()
    pools.set_gpus(TWO_GPUS)
    pools.take(found(device_mask="1"))
    pools.apply_probe(incarnation(pools), READY)
    pools.set_gpus(Gpus(TWO_GPUS.devices[:1]))
    pool = pools.pool("default")
    assert pool
    assert (pool.state, pool.ready) == (PoolState.FAILED, False)
    assert pool.last_error == "device_mask 1 names GPU 1, which this machine does not have (it has: 0)"
    pools.set_gpus(TWO_GPUS)
    assert pools.pools[0].ready


async def test_gpu_pool_is_unready_before_gpu_discovery() -> None:
    pools = registry(device_mask="0")
    pools.apply_probe(incarnation(pools), READY)
    assert not pools.pools[0].ready


@pytest.mark.parametrize("announced_again", [False, True])
async def test_restored_pool_is_ready_before_gpu_discovery(
    announced_again: bool,
) -> None:
    pools = NodePools()
    pools.restore([found(device_mask="1")])
    if announced_again:
        pools.take(found(device_mask="1"), READY)
    pools.apply_probe(incarnation(pools), READY)
    assert pools.pools[0].ready
    pools.set_gpus(TWO_GPUS)
    assert pools.pools[0].ready
    pools.set_gpus(Gpus(problem="NVML did not answer within 10 s"))
    assert pools.pools[0].state is PoolState.FAILED


async def test_engines_probed_waits_for_each_restored_engine() -> None:
    pools = NodePools()
    pools.restore([found(), found(pool_id="other", port=18081)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pools.engines_probed)
        for replica, look in zip(pools.replicas, (READY, GONE), strict=True):
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            pools.apply_probe(replica.incarnation, look)


@pytest.mark.parametrize(
    ("looks", "lines"),
    [
        ((READY, READY), ["is ready"]),
        ((READY, GONE, GONE, GONE, GONE), ["is ready", "is not ready: the engine is gone"]),
        ((READY, SILENT, READY), ["is ready"]),
        ((GONE, GONE, GONE, GONE), ["is not ready: the engine is gone"]),
    ],
)
async def test_each_transition_is_logged_once(
    looks: tuple[ProbeResult, ...], lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pools = registry()
    caplog.clear()
    for look in looks:
        pools.apply_probe(incarnation(pools), look)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(lines)
    assert all(line in text for line, text in zip(lines, messages, strict=True))


@pytest.mark.parametrize("state", [PoolState.DRAINING, PoolState.UNLOADED])
async def test_engine_of_an_unloaded_pool_is_dropped_at_once(
    state: PoolState, caplog: pytest.LogCaptureFixture
) -> None:
    pools = registry()
    pools.apply_probe(incarnation(pools), READY)
    caplog.set_level("INFO")
    caplog.clear()
    assert pools.set_reports({"default": report(state)})
    assert pools.replicas == ()
    assert [(pool.state, pool.ready, pool.replicas) for pool in pools.pools] == [(state, False, [])]
    assert not pools.set_reports({"default": report(PoolState.UNLOADED)})
    assert caplog.messages == ["pool default is unloaded: its engine no longer runs"]


async def test_memory_is_read_again_when_a_pool_is_loaded_or_unloaded() -> None:
    pools = registry()
    await pools.loads_changed.wait(0)
    pools.apply_probe(incarnation(pools), READY)
    assert await pools.loads_changed.wait(0)
    pools.apply_probe(incarnation(pools), SILENT)
    with pools.leases.held(("default", "r0"), lambda: None):
        assert not await pools.loads_changed.wait(0)
    pools.set_reports({"default": report(PoolState.DRAINING)})
    assert await pools.loads_changed.wait(0)
    pools.set_reports({"default": report(PoolState.UNLOADED)})
    assert await pools.loads_changed.wait(0)


async def test_changed_memory_wakes_waiters_and_is_reported() -> None:
    pools = registry()
    before = pools.revision
    pools.set_gpus(TWO_GPUS, MachineMemory(100, 40))
    assert (pools.revision, pools.memory_readings) == (before, 0)
    pools.set_gpus(TWO_GPUS, changed=True)
    assert (pools.revision, pools.memory_readings) == (before + 1, 1)
    assert [(each.device, each.total_bytes, each.free_bytes) for each in pools.memory] == [
        *(("0", 80, 60), ("1", 80, 60), ("cpu", 100, 40))
    ]


async def test_removed_pool_is_forgotten_though_its_engine_answers() -> None:
    pools = NodePools()
    pools.take(found(), READY)
    pools.set_reports({"default": report(PoolState.DRAINING, removed=True)})
    assert pools.pools == ()


async def test_leases_alone_do_not_wake_waiters_for_settled() -> None:
    node_pools, woken = NodePools(), list[str]()
    node_pools.take(found(port=1), READY)

    async def wait_settled() -> None:
        await node_pools.settled()
        woken.append("settled")

    async def wait_changed() -> None:
        await node_pools.changed(node_pools.revision)
        woken.append("changed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_settled)
        nursery.start_soon(wait_changed)
        await trio.testing.wait_all_tasks_blocked()
        with node_pools.leases.held(node_pools.replicas[0].key, lambda: None):
            assert node_pools.pools[0].active_leases == 1
            await trio.testing.wait_all_tasks_blocked()
            assert woken == ["changed"]
        node_pools.set_drained(DrainState(node=True))
    assert woken == ["changed", "settled"]
