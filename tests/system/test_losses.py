"""Pools recover after all daemons and engines are killed, and after a loss of state."""

from tests.system.lab.client import complete
from tests.system.lab.machine import DAEMONS, Machine

ENGINE = "llama-engine@default.service"


def assert_serving(machine: Machine) -> None:
    machine.wait_until_served("default")
    assert complete(machine.queen, placement={"mode": "pin", "pin_pool_id": "default"}).last.name == "end"


def test_pools_recover_after_all_processes_are_killed(serving: Machine) -> None:
    before = serving.show(ENGINE, "MainPID")
    serving.systemctl("kill", "--signal=KILL", *DAEMONS, "llama-engine@*.service")
    assert_serving(serving)
    assert serving.show(ENGINE, "MainPID") != before
    assert serving.systemctl("--failed", "--no-legend").strip() == ""


def test_running_engines_are_restored_after_loss_of_state(serving: Machine) -> None:
    engine = serving.show(ENGINE, "MainPID")
    for stopped, lost in (
        ("pool-managerd", "/var/lib/pool-managerd/*"),
        ("pool-managerd", "/var/lib/pool-managerd/* /run/llama-orch/engines/*"),
        ("pool-managerd engine-provisioner", "/var/lib/pool-managerd/* /run/llama-orch/engines/*"),
        ("queen-rbee pool-managerd", "/var/lib/queen-rbee/* /var/lib/pool-managerd/*"),
    ):
        # Remove only the contents: a client that connects meanwhile starts the daemon, which needs the directory.
        commands = f"systemctl stop {stopped}; rm -rf {lost}; systemctl start {stopped}"
        serving.container.check("sh", "-c", commands)
        assert_serving(serving)
    assert serving.show(ENGINE, "MainPID") == engine
