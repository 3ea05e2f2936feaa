"""Pools are added and removed while a machine serves: by orchctl, by a file, and never by a file with an error."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import TINY
from tests.system.lab.client import complete
from tests.system.lab.inside import served_inside
from tests.system.lab.machine import PROVISIONER_ENV, Machine
from tests.system.lab.waiting import until

RELEASE = "trixie"

PROVISIONER = "engine-provisioner.service"
DROP_INS = "/etc/llama-orch/pools.d"
REPOSITORY = "org/tiny"


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
    assert machine.messages("LLORCH_EVENT=pools_reload_refused").count(place) == 1, "the path unit has asked as well"
    assert machine.show("engine-provisioner-pools.service", "Result") == "success"
    assert place in machine.show(PROVISIONER, "StatusText")
    assert machine.show(PROVISIONER, "ActiveState") == "active"
    assert tokens(machine, "default") > 0

    machine.container.check("rm", f"{DROP_INS}/broken.toml")
    machine.systemctl("reload", PROVISIONER)
    until(lambda: "refused" not in machine.show(PROVISIONER, "StatusText"), "the status to be as before")


@pytest.fixture
def hub(machine: Machine, tiny_model: Path, tmp_path: Path) -> Iterator[None]:
    """An imitation of the hub, which the machine uses, with a repository of two quantizations."""
    (repository := tmp_path / REPOSITORY).mkdir(parents=True)
    for quant in ("Q4_0", "Q8_0"):
        (repository / f"tiny-{quant}.gguf").write_bytes(tiny_model.read_bytes())
    with served_inside(machine.container, "tests.imitations.hub", str(tmp_path)) as url:
        machine.set_variable(PROVISIONER_ENV, "HF_ENDPOINT", url)
        machine.systemctl("restart", PROVISIONER)
        yield


@pytest.mark.usefixtures("hub")
def test_one_command_goes_from_the_hub_to_an_answer(machine: Machine) -> None:
    command = ("orchctl", "run", f"hf:{REPOSITORY}:Q4_0", "the river", "--max-tokens", "4", "--ctx", "512")
    assert machine.container.check(*command).strip()
    assert machine.container.check("stat", "-c", "%a %U %G", f"{DROP_INS}/tiny-q4-0.toml") == (
        "640 root engine-provisioner\n"
    )
    assert "can start" in machine.container.check("engine-provisioner", "plan", "tiny-q4-0")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((f"hf:{REPOSITORY}:Q2_K",), "Q4_0"),
        (("hf:org/none:Q4_0",), "does not exist, or is private"),
        ((f"hf:{REPOSITORY}:Q4_0", "--engine-mode", "pip"), "apt install python3-venv"),
    ],
)
def test_obstacle_is_named_before_anything_changes(machine: Machine, arguments: tuple[str, ...], words: str) -> None:
    result = machine.container.run("orchctl", "run", *arguments, "the river")
    assert result.status == 65, result
    assert words in result.stderr
    assert "nothing has changed" in result.stderr
    assert list(machine.container.path(DROP_INS).iterdir()) == []
