"""Pools are loaded and unloaded as units: memory is measured, a restart keeps them, unloading stops them."""

from typing import Any

import pytest

from llama_orch.telemetry.events import pools as events
from tests.engines.llama_server import Archive
from tests.system.conftest import TINY
from tests.system.lab.machine import Machine, Pool
from tests.system.lab.waiting import until

RELEASE = "bookworm"

ENGINE = "llama-engine@default.service"
PROVISIONER = "engine-provisioner.service"
WITHIN_S = 60.0


@pytest.fixture(scope="module")
def on_demand(stocked: Machine, llama_server_tar: Archive) -> Machine:
    """A machine without a queen whose pool is not loaded."""
    stocked.configure(llama_server_tar, Pool("default", TINY, extra="preload = false"))
    stocked.systemctl("start", "pool-managerd.service", PROVISIONER)
    until_state(stocked, "unloaded")
    return stocked


def until_state(machine: Machine, state: str) -> dict[str, Any]:
    """Wait until the pool is in that state, and return its status."""
    until(
        lambda: machine.pool("default").get("state") == state,
        f"the pool to be {state}",
        WITHIN_S,
        lambda: f"{machine.pool('default')}\n{machine.recent()}",
    )
    return machine.pool("default")


def accounts_memory(machine: Machine) -> bool:
    """Whether the kernel accounts the memory of units: a host with cgroup v1 does not let a container do so."""
    controllers = machine.container.path("/sys/fs/cgroup/cgroup.controllers")
    return controllers.exists() and "memory" in controllers.read_text().split()


def ask(machine: Machine, verb: str) -> None:
    answer = machine.pool_manager.post(f"/v2/pools/default/{verb}", None)
    assert answer.status == 202, answer


def test_pool_is_loaded_kept_over_a_restart_and_unloaded(on_demand: Machine) -> None:
    assert on_demand.show(ENGINE, "ActiveState") == "inactive"
    estimate = on_demand.pool("default")["residency"]["need_bytes"]["cpu"]

    ask(on_demand, "preload")
    until_state(on_demand, "ready")
    assert on_demand.show(ENGINE, "ActiveState") == "active"
    until(lambda: on_demand.pool("default")["residency"].get("load_s"), "the load to be recorded", WITHIN_S)
    measured = on_demand.pool("default")["residency"]["need_bytes"]["cpu"]
    assert (measured != estimate) == accounts_memory(on_demand)

    pid = on_demand.show(ENGINE, "MainPID")
    on_demand.systemctl("restart", PROVISIONER)
    until(lambda: "is adopted" in on_demand.messages(f"--unit={PROVISIONER}"), "the engine to be adopted", WITHIN_S)
    assert until_state(on_demand, "ready")["residency"]["need_bytes"]["cpu"] > 0
    assert on_demand.show(ENGINE, "MainPID") == pid

    ask(on_demand, "unload")
    until_state(on_demand, "unloaded")
    assert on_demand.show(ENGINE, "ActiveState") == "inactive"
    assert not on_demand.container.path(f"/proc/{pid}").exists()
    on_demand.systemctl("restart", PROVISIONER)
    until(lambda: on_demand.pool("default").get("state") == "unloaded", "the pool to stay unloaded", WITHIN_S)
    assert on_demand.show(ENGINE, "ActiveState") == "inactive"
    assert on_demand.journal(f"MESSAGE_ID={events.POOL_UNLOADED.message_id}")
    assert not on_demand.journal(f"MESSAGE_ID={events.POOL_UNREADY.message_id}")
