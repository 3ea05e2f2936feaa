"""Two pool-managerds with one node id on one machine: a restart is accepted, a duplicate is refused."""

import pytest
import trio

from llama_orch.contracts.errors import ApiError
from queen_rbee.fleet.conflicts import WARNING_S
from tests.unit.queen_rbee.fleet_rig import INSTANCE, OTHER_INSTANCE, TIMEOUT_MS, FleetRig, heartbeat, registration

FIRST, SECOND = "http://n1:9200", "http://n1:9300"


def beat(rig: FleetRig, instance: str | None) -> str | None:
    """Send a heartbeat and return the warning in the answer."""
    return rig.fleet.heartbeat("n1", heartbeat(instance_id=instance)).warning


async def register(rig: FleetRig, instance: str | None, address: str) -> None:
    await rig.fleet.register(registration(instance_id=instance, address=address), "192.0.2.1")


async def online(rig: FleetRig, instance: str | None = INSTANCE, address: str = FIRST) -> None:
    await register(rig, instance, address)
    beat(rig, instance)


async def refused(rig: FleetRig, instance: str | None, address: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await register(rig, instance, address)
    assert caught.value.status == 409
    return caught.value


async def test_duplicate_on_the_same_machine_is_refused(caplog):
    rig = FleetRig()
    await online(rig)
    error = await refused(rig, OTHER_INSTANCE, SECOND)
    assert all(part in error.body.message for part in (FIRST, SECOND, "same machine"))
    assert f"node_registration of n1 at {SECOND}" in caplog.text
    assert rig.fleet.node("n1").address == FIRST
    assert rig.open_nodes == {"n1"}


async def test_duplicate_is_logged_once_a_minute(caplog, autojump_clock):
    rig = FleetRig()
    await online(rig)
    for _try in range(3):
        await refused(rig, OTHER_INSTANCE, SECOND)
    assert caplog.text.count("refused") == 1


async def test_registered_node_is_warned_of_its_duplicate(autojump_clock):
    rig = FleetRig()
    await online(rig)
    assert beat(rig, INSTANCE) is None
    await refused(rig, OTHER_INSTANCE, SECOND)
    assert SECOND in (beat(rig, INSTANCE) or "")
    await trio.sleep(WARNING_S)
    assert beat(rig, INSTANCE) is None


async def test_heartbeat_of_duplicate_changes_nothing():
    rig = FleetRig()
    await online(rig)
    for other in (OTHER_INSTANCE, None):
        with pytest.raises(ApiError) as caught:
            beat(rig, other)
        assert (caught.value.status, FIRST in caught.value.body.message) == (409, True)
    assert rig.status() == "online"


async def test_restart_at_the_same_address_is_accepted_at_once():
    rig = FleetRig()
    await online(rig)
    await online(rig, OTHER_INSTANCE)
    assert rig.status() == "online"


async def test_superseded_process_stays_refused():
    """Two processes that advertise the same address do not alternate."""
    rig = FleetRig()
    await online(rig)
    await online(rig, OTHER_INSTANCE)
    await refused(rig, INSTANCE, FIRST)
    assert beat(rig, OTHER_INSTANCE) is not None


async def test_address_change_of_same_process_is_accepted():
    rig = FleetRig()
    await online(rig)
    await online(rig, INSTANCE, SECOND)
    (replica,) = rig.registry.replicas.all()
    assert replica.url.startswith(SECOND)


async def test_other_address_is_accepted_once_the_first_is_offline(autojump_clock):
    rig = FleetRig()
    await online(rig)
    await trio.sleep(TIMEOUT_MS / 1000 + 1)
    await rig.fleet.check(trio.current_time())
    await online(rig, OTHER_INSTANCE, SECOND)
    assert rig.fleet.node("n1").address == SECOND
    await refused(rig, INSTANCE, FIRST)


async def test_nodes_without_instance_id_can_register():
    rig = FleetRig()
    for address in (FIRST, SECOND):
        await online(rig, None, address)
    await online(rig, INSTANCE, SECOND)
    assert rig.fleet.node("n1").address == SECOND


async def test_late_deregistration_of_replaced_process_is_refused():
    rig = FleetRig()
    await online(rig)
    await online(rig, OTHER_INSTANCE)
    with pytest.raises(ApiError) as caught:
        await rig.fleet.deregister("n1", "stopped", INSTANCE)
    assert (caught.value.status, rig.status()) == (409, "online")
    await rig.fleet.deregister("n1", "stopped", OTHER_INSTANCE)
    assert rig.fleet.views() == []
