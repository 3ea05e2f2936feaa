"""A node that sleeps stays known: its pools can be placed again once it is woken, and it never times out."""

import pytest
import trio

from llama_orch.bell import Bell
from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.pools import PoolState, Residency
from llama_orch.contracts.wake import Wake
from llama_orch.engines.wire.adapters import adapters
from queen_rbee.fleet.fleet import FORGET_AFTER_S
from queen_rbee.pools.registry import PoolRegistry
from tests.unit.queen_rbee.fleet_rig import (
    INSTANCE,
    OTHER_INSTANCE,
    OTHER_MACHINE,
    TIMEOUT_MS,
    FleetRig,
    heartbeat,
    registration,
    snapshot,
)

WAKE = Wake(macs=["52:54:00:12:34:56"])
UNLOADED = snapshot(ready=False, state=PoolState.UNLOADED, residency=Residency())


async def rig_with_node(**changes) -> FleetRig:
    rig = FleetRig()
    await rig.join("n1", **{"wake": WAKE, **changes})
    return rig


def sleep(rig: FleetRig, **changes) -> bool:
    """Ask for leave to sleep; return the answer."""
    return rig.fleet.heartbeat("n1", heartbeat(sleeping=True, **{"pools": [UNLOADED], **changes})).may_sleep


def pool_state(rig: FleetRig) -> PoolState:
    (pool,) = rig.registry.pools()
    return pool.state


async def test_sleeping_node_keeps_its_pools() -> None:
    rig = await rig_with_node()
    assert sleep(rig)
    assert rig.status() == "asleep"
    assert pool_state(rig) is PoolState.ASLEEP
    (candidate,) = rig.registry.replicas.all()
    assert candidate.available
    assert not candidate.serves
    assert rig.fleet.asleep == {"n1"}
    assert rig.fleet.online == 0


async def test_sleeping_node_is_not_a_silent_one_for_alerts() -> None:
    rig = await rig_with_node()

    def counted() -> set[str]:
        return {sample.labels["node_id"] for sample in next(iter(rig.metrics.nodes.heartbeats.collect())).samples}

    rig.fleet.heartbeat("n1", heartbeat(pools=[UNLOADED]))
    assert counted() == {"n1"}
    sleep(rig)
    assert counted() == set()


async def test_next_heartbeat_ends_the_sleep() -> None:
    rig = await rig_with_node()
    sleep(rig)
    rig.fleet.heartbeat("n1", heartbeat(pools=[UNLOADED]))
    assert (rig.status(), pool_state(rig), rig.fleet.asleep) == ("online", PoolState.UNLOADED, set())


async def test_sleeping_node_never_times_out(autojump_clock: trio.testing.MockClock) -> None:
    rig = await rig_with_node()
    sleep(rig)
    await trio.sleep(2 * FORGET_AFTER_S)
    await rig.fleet.check(trio.current_time())
    assert rig.status() == "asleep"


async def test_node_without_mac_may_not_sleep() -> None:
    rig = await rig_with_node(wake=None)
    assert not sleep(rig)
    assert rig.status() == "online"


async def test_node_with_leased_slot_may_not_sleep() -> None:
    rig = await rig_with_node()
    await rig.registry.lease(("p", "n1"))
    assert not sleep(rig)
    rig.registry.release(("p", "n1"))
    assert sleep(rig)


async def test_needed_node_may_not_sleep() -> None:
    rig = await rig_with_node()
    rig.fleet.may_sleep = lambda node_id: node_id != "n1"
    assert not sleep(rig)


async def test_failed_pool_stays_failed_while_node_sleeps() -> None:
    rig = await rig_with_node()
    sleep(rig, pools=[snapshot(ready=False, state=PoolState.FAILED)])
    assert pool_state(rig) is PoolState.FAILED


async def test_restarted_queen_knows_that_node_sleeps() -> None:
    rig = await rig_with_node()
    sleep(rig)
    again = FleetRig(store=rig.store, registry=PoolRegistry(Bell(), adapters()))
    await again.fleet.load()
    assert again.status() == "asleep"
    assert again.fleet.asleep == {"n1"}
    assert again.fleet.node("n1").wake == WAKE


async def test_node_that_does_not_wake_is_offline(autojump_clock: trio.testing.MockClock) -> None:
    rig = await rig_with_node()
    sleep(rig)
    await trio.sleep(2 * FORGET_AFTER_S)
    rig.fleet.give_up("n1", 180)
    await rig.fleet.check(trio.current_time())
    assert (rig.status(), pool_state(rig), rig.fleet.asleep) == ("offline", PoolState.OFFLINE, set())
    assert rig.registry.pools()[0].last_error == "the node did not wake"
    rig.fleet.heartbeat("n1", heartbeat())
    assert rig.status() == "online"


async def test_machine_booted_instead_of_resumed_may_register() -> None:
    rig = FleetRig()
    await rig.fleet.register(registration("n1", instance_id=INSTANCE, wake=WAKE), "192.0.2.1")
    assert sleep(rig, instance_id=INSTANCE)
    new = registration("n1", instance_id=OTHER_INSTANCE, address="http://n1-new:9200", wake=WAKE)
    await rig.fleet.register(new, "192.0.2.2")
    assert rig.status() == "registering"


async def test_other_machine_may_not_take_id_of_sleeping_node() -> None:
    rig = await rig_with_node()
    sleep(rig)
    with pytest.raises(ApiError) as refused:
        await rig.fleet.register(registration("n1", machine_id=OTHER_MACHINE), "192.0.2.2")
    assert refused.value.status == 409


async def test_awake_node_still_times_out(autojump_clock: trio.testing.MockClock) -> None:
    rig = await rig_with_node()
    sleep(rig)
    rig.fleet.heartbeat("n1", heartbeat())
    await trio.sleep(TIMEOUT_MS / 1000 + 1)
    await rig.fleet.check(trio.current_time())
    assert rig.status() == "offline"
