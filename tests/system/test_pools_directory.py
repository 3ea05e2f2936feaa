"""Pools are added and removed while a machine serves: by orchctl, by a file, and never by a file with an error."""

from collections.abc import Iterator

import pytest

from tests.system.conftest import TINY
from tests.system.lab.client import complete
from tests.system.lab.machine import Machine
from tests.system.lab.waiting import until

PROVISIONER = "engine-provisioner.service"
DROP_INS = "/etc/llama-orch/pools.d"


@pytest.fixture
def machine(serving: Machine) -> Iterator[Machine]:
    """A machine that serves the pool `default`; drop-in files are removed when the test ends."""
    yield serving
    serving.container.check("sh", "-c", f"rm -f {DROP_INS}/*.toml")
    serving.systemctl("reload", PROVISIONER)
    serving.container.run("systemctl", "reset-failed", "engine-provisioner-pools.service")


def tokens(machine: Machine, pool_id: str) -> int:
    outcome = complete(machine.queen, max_tokens=4, placement={"mode": "pin", "pin_pool_id": pool_id})
    assert outcome.last.name == "end", outcome.last
    return len(outcome.text)


def test_pool_is_added_by_one_command_or_one_file(machine: Machine) -> None:
    pids = [machine.show(unit, "MainPID") for unit in (PROVISIONER, "llama-engine@default.service")]
    said = machine.container.check("orchctl", "pool", "add", "second", "--model", TINY, "--ctx", "512", "--preload")
    assert f"pool second is configured in {DROP_INS}/second.toml (engine as in pool default)" in said
    machine.wait_until_served("second")
    assert tokens(machine, "second") > 0

    copy = f"sed s/second/third/ {DROP_INS}/second.toml >{DROP_INS}/third.toml"
    machine.container.check("sh", "-c", copy)
    machine.wait_until_served("third")
    machine.container.check("orchctl", "pool", "rm", "second")
    until(lambda: machine.show("llama-engine@second.service", "ActiveState") == "inactive", "the engine to stop")
    until(lambda: machine.pool("second") == {}, "the pool to be forgotten")
    assert tokens(machine, "third") > 0
    assert [machine.show(unit, "MainPID") for unit in (PROVISIONER, "llama-engine@default.service")] == pids


def test_broken_file_leaves_pools_serving(machine: Machine) -> None:
    machine.container.check("sh", "-c", f"printf '[[pools]]\\n= 1\\n' >{DROP_INS}/broken.toml")
    reload = machine.container.run("systemctl", "reload", PROVISIONER)
    assert reload.status != 0
    place = f"{DROP_INS}/broken.toml:2: is not valid TOML"
    assert place in machine.messages(f"--unit={PROVISIONER}")
    assert place in machine.show(PROVISIONER, "StatusText")
    assert machine.show(PROVISIONER, "ActiveState") == "active"
    assert tokens(machine, "default") > 0

    machine.container.check("rm", f"{DROP_INS}/broken.toml")
    machine.systemctl("reload", PROVISIONER)
    until(lambda: "refused" not in machine.show(PROVISIONER, "StatusText"), "the status to be as before")
