"""What an operator does to a machine that serves: restart everything, send signals, ask as a member of the group."""

import re
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException

from tests.system.lab.load import under_load
from tests.system.lab.machine import DAEMONS, TARGET, Machine
from tests.system.lab.waiting import until

RESTARTS = 20
TCP_PORTS = {8080, 9090, 9200, 9091}


def failed_units(machine: Machine) -> str:
    """What `systemctl --failed` lists."""
    return machine.systemctl("list-units", "--failed", "--no-legend", "--plain")


def active_units(machine: Machine) -> str:
    """The daemons, engines and sockets that are not stopped."""
    names = [f"{name}*" for name in (*DAEMONS, "llama-engine@")]
    states = ("--state=active", "--state=activating", "--state=deactivating")
    return machine.systemctl("list-units", *states, "--no-legend", "--plain", *names)


def held_by_systemd(machine: Machine) -> set[int]:
    """The TCP ports on which systemd listens; a daemon that has bound for itself is alone on its port."""
    lines = machine.container.check("ss", "--no-header", "-ltnp").splitlines()
    return {int(re.split(r"\s+", line)[3].rpartition(":")[2]) for line in lines if '"systemd"' in line}


def test_restarts_of_the_target_refuse_no_connection(serving: Machine) -> None:
    def ask() -> str | None:
        for client in (serving.queen, serving.pool_manager):
            if (status := client.get("/health").status) != 200:
                return f"port {client.port}: status {status}"
        return None

    with under_load(ask) as load:
        for _restart in range(RESTARTS):
            before = [serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS]
            serving.systemctl("restart", TARGET)
            assert failed_units(serving) == ""
            assert not {serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS} & {*before, "0"}
            load.wait_for_more()
    assert load.failures == {}
    assert held_by_systemd(serving) >= TCP_PORTS
    serving.wait_until_served("default")


def test_target_stops_while_clients_knock(serving: Machine, undo: Callable[..., object]) -> None:
    undo(serving.wait_until_served, "default")
    undo(serving.systemctl, "start", TARGET)

    def knock() -> None:
        with suppress(OSError, HTTPException):
            serving.queen.get("/health")

    with under_load(knock):
        serving.systemctl("stop", TARGET)
        until(lambda: active_units(serving) == "", "everything to stop", explain=serving.recent)
