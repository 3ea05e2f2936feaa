"""What an operator does to a machine that serves: restart everything, send signals, ask as a member of the group."""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPException

import pytest

from tests.system.lab.client import Client, complete
from tests.system.lab.load import under_load
from tests.system.lab.machine import DAEMONS, TARGET, Machine, changed_from
from tests.system.lab.waiting import until

RESTARTS = 20
MOVES = 6
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


def test_sockets_of_a_daemon_restart_without_failure(serving: Machine, undo: Callable[..., object]) -> None:
    """As after a change of an address; while the target is stopped, so that the Unix socket closes, too."""
    undo(serving.wait_until_served, "default")
    undo(serving.systemctl, "start", TARGET)
    serving.systemctl("stop", TARGET)
    for daemon in ("queen-rbee", "pool-managerd"):
        for _restart in range(MOVES):
            serving.systemctl("restart", f"{daemon}.socket", f"{daemon}-metrics.socket", f"{daemon}.service")
            assert failed_units(serving) == ""


def test_target_stops_while_clients_knock(serving: Machine, undo: Callable[..., object]) -> None:
    undo(serving.wait_until_served, "default")
    undo(serving.systemctl, "start", TARGET)

    def knock() -> None:
        with suppress(OSError, HTTPException):
            serving.queen.get("/health")

    with under_load(knock):
        serving.systemctl("stop", TARGET)
        until(lambda: active_units(serving) == "", "everything to stop", explain=serving.recent)


def logged(machine: Machine, pid: str, words: str) -> bool:
    return words in machine.messages(f"_PID={pid}")


def test_sighup_ends_no_daemon(serving: Machine) -> None:
    before = [serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS]
    for daemon, pid in zip(DAEMONS, before, strict=True):
        serving.systemctl("kill", "--kill-whom=main", "--signal=HUP", f"{daemon}.service")
        until(partial(logged, serving, pid, "SIGHUP"), f"{daemon} to log the signal")
    assert [serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS] == before
    assert complete(serving.queen, placement={"mode": "pin", "pin_pool_id": "default"}).last.name == "end"


@pytest.mark.parametrize("daemon", DAEMONS)
def test_daemon_returns_after_clean_exit_of_its_own(serving: Machine, daemon: str) -> None:
    unit = f"{daemon}.service"
    before = serving.show(unit, "MainPID")
    serving.systemctl("kill", "--kill-whom=main", "--signal=TERM", unit)
    until(changed_from(before, lambda: serving.show(unit, "MainPID")), f"another {daemon}", explain=serving.recent)
    serving.wait_until_served("default")


ENV = "/etc/llama-orch/queen-rbee.env"
MOVED = 8098


def edited(machine: Machine, undo: Callable[..., object], unit: str, text: str) -> None:
    """As `systemctl edit` and a restart of socket and daemon; undone when the test ends."""
    restart = ("restart", "queen-rbee.socket", "queen-rbee.service")
    undo(machine.wait_until_served, "default")
    undo(machine.systemctl, *restart)
    undo(machine.systemctl, "revert", unit)
    machine.container.write(f"/etc/systemd/system/{unit}.d/override.conf", text)
    machine.systemctl("daemon-reload")
    machine.systemctl(*restart)


def said(machine: Machine, event: str) -> str:
    """The texts of an event of the queen that runs now."""
    pid = machine.show("queen-rbee.service", "MainPID")
    return machine.messages(f"LLORCH_EVENT={event}", f"_PID={pid}")


def test_socket_drop_in_moves_the_queen(serving: Machine, undo: Callable[..., object]) -> None:
    edited(serving, undo, "queen-rbee.socket", f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{MOVED}\n")
    assert f"ready on 127.0.0.1:{MOVED}" in said(serving, "daemon_ready")
    assert "/etc/systemd/system/queen-rbee.socket.d/override.conf sets" in said(serving, "socket_disagrees")
    assert Client(serving.container, MOVED).get("/health").status == 200
    assert "ready" in serving.container.check("orchctl", "status"), "it asks over the Unix socket"


def test_address_in_service_drop_in_is_answered_with_the_file(serving: Machine, undo: Callable[..., object]) -> None:
    text = f"[Service]\nEnvironment=ORCHESTRATORD_BIND_ADDR=127.0.0.1:{MOVED}\n"
    edited(serving, undo, "queen-rbee.service", text)
    assert "ready on 127.0.0.1:8080" in said(serving, "daemon_ready")
    disagrees = said(serving, "socket_disagrees")
    assert "/etc/systemd/system/queen-rbee.service.d/override.conf sets ORCHESTRATORD_BIND_ADDR" in disagrees
    serving.container.check("rm", "/etc/systemd/system/queen-rbee.service.d/override.conf")
    undo(serving.container.write, ENV, serving.container.path(ENV).read_text(), mode=0o640)
    serving.set_variable(ENV, "ORCHESTRATORD_BIND_ADDR", f"127.0.0.1:{MOVED}")
    serving.container.check("sh", "-c", disagrees.rpartition("then: ")[2])
    assert f"ready on 127.0.0.1:{MOVED}" in said(serving, "daemon_ready")
    assert said(serving, "socket_disagrees") == ""


def test_address_that_comes_later_is_served_then(serving: Machine, undo: Callable[..., object]) -> None:
    address = "10.77.3.3"
    edited(serving, undo, "queen-rbee.socket", f"[Socket]\nListenStream=\nListenStream={address}:8080\n")
    assert f"{address}:8080: no interface has this address yet" in serving.messages("--unit=queen-rbee.service")
    undo(serving.container.check, "ip", "address", "del", f"{address}/32", "dev", "lo")
    serving.container.check("ip", "address", "add", f"{address}/32", "dev", "lo")
    assert "ok" in serving.container.check("curl", "--silent", "--fail", f"http://{address}:8080/health")


TOKEN = "a-token-that-orchctl-lacks"


def test_root_and_the_group_need_no_token_and_others_do(serving: Machine, undo: Callable[..., object]) -> None:
    undo(serving.systemctl, "restart", "queen-rbee.service")
    undo(serving.container.check, "rm", "/etc/llama-orch/api-token")
    serving.container.write("/etc/llama-orch/api-token", TOKEN, mode=0o600)
    serving.systemctl("restart", "queen-rbee.service")
    assert "ready" in serving.container.check("orchctl", "status")
    serving.container.check("useradd", "--groups", "llama-orch", "member")
    assert "ready" in serving.container.check("runuser", "-u", "member", "--", "orchctl", "status")
    refused = serving.container.run("runuser", "-u", "nobody", "--", "orchctl", "status")
    assert "MISSING_TOKEN" in refused.stderr
    assert "/run/llama-orch/queen-rbee.sock" in refused.stderr
