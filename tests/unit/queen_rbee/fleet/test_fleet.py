"""Nodes register, send heartbeats, go offline when silent and return; they survive a restart of the queen."""

from datetime import UTC, datetime, timedelta

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.service.watchdog import Pulse
from queen_rbee.fleet.fleet import FORGET_AFTER_S, GRACE_S
from queen_rbee.fleet.nodes import Node, timed_out
from queen_rbee.fleet.pool_statuses import PoolStatuses
from queen_rbee.store.protocol import StoreFailure
from tests.unit.queen_rbee.fleet_rig import (
    CHECK_S,
    MACHINE,
    OTHER_MACHINE,
    TIMEOUT_MS,
    FleetRig,
    failed,
    heartbeat,
    registration,
    snapshot,
)


async def refused(action) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await action
    return caught.value


async def test_node_gets_tasks_after_first_heartbeat():
    rig = FleetRig()
    await rig.fleet.register(registration(), "192.0.2.1")
    assert (rig.status(), rig.open_nodes) == ("registering", set())
    rig.fleet.heartbeat("n1", heartbeat())
    assert (rig.status(), rig.open_nodes) == ("online", {"n1"})


async def test_same_pool_on_two_nodes_has_two_relay_urls():
    rig = FleetRig()
    await rig.join("n1")
    await rig.join("n2", machine_id=OTHER_MACHINE)
    assert {found.url for found in rig.registry.replicas.all()} == {
        "http://n1:9200/v2/pools/p/engine",
        "http://n2:9200/v2/pools/p/engine",
    }
    assert [(pool.pool_id, pool.node_id) for pool in rig.registry.pools()] == [("p", "n1"), ("p", "n2")]


async def test_silent_node_goes_offline_and_its_tasks_end(autojump_clock):
    rig = FleetRig()
    await rig.join()
    await rig.registry.lease(("p", "n1"))
    await trio.sleep(TIMEOUT_MS / 1000)
    await rig.fleet.check(trio.current_time())
    assert rig.open_nodes == {"n1"}, "a silence of exactly the timeout is tolerated"
    await trio.sleep(0.001)
    await rig.fleet.check(trio.current_time())
    assert (rig.status(), rig.open_nodes, rig.displaced) == ("offline", set(), [("p", "n1")])


async def test_tasks_of_unreported_pool_end_with_silent_node(autojump_clock):
    rig = FleetRig()
    await rig.join()
    await rig.registry.lease(("p", "n1"))
    rig.fleet.heartbeat("n1", heartbeat(pools=[]))
    assert rig.fleet.node("n1").active_leases == 1
    await rig.fleet.check(trio.current_time() + TIMEOUT_MS / 1000 + 0.001)
    assert rig.displaced == [("p", "n1")]


async def test_silent_node_is_offline_within_timeout_and_one_check(autojump_clock):
    rig = FleetRig()
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.fleet.run, Pulse("fleet", 60.0))
        await rig.join()
        started = trio.current_time()
        while rig.status() != "offline":
            await rig.registry.wait_for_change()
        assert TIMEOUT_MS / 1000 <= trio.current_time() - started <= TIMEOUT_MS / 1000 + CHECK_S
        nursery.cancel_scope.cancel()


async def test_health_of_foreign_pool_is_not_recorded(autojump_clock):
    rig = FleetRig()
    await rig.join("n1")
    rig.fleet.heartbeat("n1", heartbeat("n1", pools=[snapshot("n1", "mine"), snapshot("n2", "not-mine")]))
    pool_ids = {sample.labels["pool_id"] for metric in rig.metrics.checks.collect() for sample in metric.samples}
    assert ("mine" in pool_ids, "not-mine" in pool_ids) == (True, False)


async def test_online_count_follows_status_changes(autojump_clock):
    rig, counts = FleetRig(), []

    def count() -> None:
        sending = [view.node_id for view in rig.fleet.views() if view.status in ("online", "draining", "failed")]
        assert rig.fleet.online == len(sending)
        counts.append((rig.fleet.online, rig.fleet.size))

    await rig.fleet.register(registration("n1"), "192.0.2.1")
    count()
    for node_id, pools in (("n1", [snapshot("n1")]), ("n2", []), ("n1", [failed("n1")])):
        if node_id == "n2":
            await rig.join(node_id)
        rig.fleet.heartbeat(node_id, heartbeat(node_id, pools=pools))
        count()
    await trio.sleep(60)
    await rig.fleet.check(trio.current_time())
    count()
    rig.fleet.heartbeat("n2", heartbeat("n2"))
    count()
    for node_id in ("n1", "n2"):
        await rig.fleet.deregister(node_id, "stopped")
        count()
    assert counts == [(0, 1), (1, 1), (2, 2), (2, 2), (0, 2), (1, 2), (1, 1), (0, 0)]


async def test_heartbeat_brings_offline_node_back(autojump_clock):
    rig = FleetRig()
    await rig.join()
    await trio.sleep(60)
    await rig.fleet.check(trio.current_time())
    rig.fleet.heartbeat("n1", heartbeat())
    assert (rig.status(), rig.open_nodes) == ("online", {"n1"})


async def test_heartbeat_of_unknown_node_is_404():
    with pytest.raises(ApiError) as caught:
        FleetRig().fleet.heartbeat("n1", heartbeat())
    assert caught.value.status == 404


async def test_second_machine_with_same_id_is_refused_and_logged(caplog):
    rig = FleetRig()
    await rig.join()
    other = registration(machine_id=OTHER_MACHINE, address="http://elsewhere:9200")
    error = await refused(rig.fleet.register(other, "192.0.2.2"))
    assert error.status == 409
    (line,) = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert all(part in line for part in ("node_registration", "http://n1:9200", "192.0.2.1", "elsewhere", "192.0.2.2"))
    assert rig.open_nodes == {"n1"}, "the first machine is not affected"


async def test_concurrent_registrations_of_one_id_admit_one():
    rig, outcomes = FleetRig(), []

    async def join(machine: str) -> None:
        try:
            await rig.fleet.register(registration(machine_id=machine), "192.0.2.1")
            outcomes.append("registered")
        except ApiError:
            outcomes.append("refused")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(join, MACHINE)
        nursery.start_soon(join, OTHER_MACHINE)
    assert sorted(outcomes) == ["refused", "registered"]


async def test_heartbeat_from_second_machine_is_refused():
    rig = FleetRig()
    await rig.join()
    with pytest.raises(ApiError) as caught:
        rig.fleet.heartbeat("n1", heartbeat(machine_id=OTHER_MACHINE, pools=[]))
    assert caught.value.status == 409
    assert rig.open_nodes == {"n1"}


async def test_id_of_offline_machine_can_be_taken_over(autojump_clock):
    rig = FleetRig()
    await rig.join()
    await trio.sleep(60)
    await rig.fleet.check(trio.current_time())
    await rig.join(machine_id=OTHER_MACHINE)
    assert rig.status() == "online"


async def test_deregistration_removes_pools_and_metrics():
    rig = FleetRig()
    await rig.join()
    await rig.fleet.deregister("n1", "stopped")
    assert rig.fleet.views() == []
    assert rig.registry.pools() == []
    assert rig.store.documents["node"] == {}
    assert (
        rig.metrics.registry.get_sample_value(
            "orchd_node_heartbeats_total", {"node_id": "n1", "outcome": "success", "reason": ""}
        )
        is None
    )
    assert (await refused(rig.fleet.deregister("n1", "again"))).status == 404


async def test_node_is_removed_after_a_day_offline(autojump_clock):
    rig = FleetRig()
    await rig.join()
    for wait in (60, FORGET_AFTER_S):
        await trio.sleep(wait)
        await rig.fleet.check(trio.current_time())
    assert (rig.fleet.views(), rig.store.documents["node"]) == ([], {})


async def test_restarted_queen_keeps_nodes(autojump_clock):
    before = FleetRig()
    await before.join()
    after = FleetRig(store=before.store)
    await after.fleet.load()
    assert after.open_nodes == {"n1"}
    after.fleet.heartbeat("n1", heartbeat())
    assert after.status() == "online"


async def test_restarted_queen_waits_grace_period_for_heartbeats(autojump_clock):
    before = FleetRig()
    await before.join()
    after = FleetRig(store=before.store)
    await after.fleet.load()
    await trio.sleep(GRACE_S)
    await after.fleet.check(trio.current_time())
    assert after.status() == "online"
    await trio.sleep(0.001)
    await after.fleet.check(trio.current_time())
    assert after.status() == "offline"


async def test_unreadable_node_document_is_ignored(autojump_clock):
    rig = FleetRig()
    await rig.join()
    (document,) = rig.store.documents["node"].values()
    rig.store.put_later("node", type(document)("n1", '{"unknown":"field"}'))
    after = FleetRig(store=rig.store)
    await after.fleet.load()
    assert after.fleet.views() == []


async def test_registration_that_cannot_be_stored_fails():
    rig = FleetRig()
    rig.store.failure = StoreFailure("the disk is full")
    with pytest.raises(StoreFailure):
        await rig.fleet.register(registration(), "192.0.2.1")


async def test_heartbeat_interval_not_below_timeout_warns(caplog):
    answer = await FleetRig().fleet.register(registration(heartbeat_interval_ms=TIMEOUT_MS), "192.0.2.1")
    assert "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS" in (answer.warning or "")
    assert answer.warning in caplog.text
    assert (
        await FleetRig().fleet.register(registration(heartbeat_interval_ms=TIMEOUT_MS - 1), "192.0.2.1")
    ).warning is None


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400), timedelta(0)])
async def test_clock_jump_of_node_affects_only_skew(jump):
    rig = FleetRig()
    await rig.join()
    rig.fleet.heartbeat("n1", heartbeat(timestamp=datetime.now(UTC) + jump))
    assert (rig.status(), rig.open_nodes) == ("online", {"n1"})
    skew = rig.fleet.node("n1").clock_skew_ms
    assert skew is not None
    assert abs(skew - jump.total_seconds() * 1000) < 5000


async def test_node_is_failed_when_all_its_pools_are():
    rig = FleetRig()
    await rig.join()
    rig.fleet.heartbeat("n1", heartbeat(draining=True))
    assert (rig.status(), rig.open_nodes) == ("draining", set())
    rig.fleet.heartbeat("n1", heartbeat(pools=[failed()]))
    assert rig.status() == "failed"
    rig.fleet.heartbeat("n1", heartbeat(pools=[failed(), snapshot(pool_id="q")]))
    assert (rig.status(), rig.open_nodes) == ("online", {"n1"})


async def test_pool_of_other_node_in_heartbeat_is_ignored():
    rig = FleetRig()
    await rig.join()
    rig.fleet.heartbeat("n1", heartbeat(pools=[snapshot("n2")]))
    assert rig.registry.pools() == []


async def test_only_lasting_changes_of_node_are_stored():
    rig = FleetRig()
    await rig.join()
    (before,) = rig.store.documents["node"].values()
    rig.fleet.heartbeat("n1", heartbeat(pools=[snapshot(slots_free=1, vram_free_bytes=7)]))
    assert list(rig.store.documents["node"].values()) == [before]
    rig.fleet.heartbeat("n1", heartbeat(pools=[snapshot(ready=False)]))
    assert list(rig.store.documents["node"].values()) != [before]


async def test_registry_is_synced_after_grace_period(autojump_clock):
    rig = FleetRig()
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.fleet.run, Pulse("fleet", 60.0))
        before = rig.registry.synced
        await trio.sleep(GRACE_S + CHECK_S)
        assert (before, rig.registry.synced) == (False, True)
        nursery.cancel_scope.cancel()


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(5, 300))
def test_node_times_out_by_silence_alone(heard_at, now, timeout):
    node = Node(registration(), "peer", datetime.now(UTC), heard_at)
    assert timed_out(node, now, timeout) is (now - heard_at > timeout)


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.booleans(), st.integers(0, 2)), max_size=6), st.booleans())
def test_reused_pool_statuses_equal_new_ones(changes, draining):
    known: dict[str, PoolSnapshot] = {}
    pools = PoolStatuses()
    for pool_id, ready, free in changes:
        known[pool_id] = snapshot(pool_id=pool_id, ready=ready, slots_free=free)
        node = Node(registration(), "peer", datetime.now(UTC), 0.0, pools=tuple(known.values()), draining=draining)
        assert pools.update(node) == PoolStatuses().update(node)
