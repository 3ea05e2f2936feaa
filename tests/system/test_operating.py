"""Operations on a serving machine: restarts, signals, changes of addresses, access by group."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

import pytest

from pool_managerd.power.power import REQUEST
from tests.system.lab.client import Client, complete
from tests.system.lab.held_port import held_port
from tests.system.lab.load import under_load
from tests.system.lab.machine import DAEMONS, TARGET, Machine, changed_from
from tests.system.lab.waiting import until
from tests.unit.manual_page import Page

RELEASE = "trixie"

UNITS_PAGE = Path(__file__).parents[2] / "man/llama-orch-units.7"
RESTARTS = 4
SOCKET_RESTARTS = 3
TCP_PORTS = {8080, 9090, 9200, 9091}
OF_SYSTEMCTL = "SYSLOG_IDENTIFIER=systemctl"


def failed_units(machine: Machine) -> str:
    """Return the output of `systemctl list-units --failed`."""
    return machine.systemctl("list-units", "--failed", "--no-legend", "--plain")


def active_units(machine: Machine) -> str:
    """Return the daemons, engines and sockets that are not stopped."""
    names = [f"{name}*" for name in (*DAEMONS, "llama-engine@")]
    states = ("--state=active", "--state=activating", "--state=deactivating")
    return machine.systemctl("list-units", *states, "--no-legend", "--plain", *names)


def ports_of_systemd(machine: Machine) -> set[int]:
    """Return the TCP ports on which systemd listens. A port that a daemon bound itself is not among them."""
    lines = machine.container.check("ss", "--no-header", "-ltnp").splitlines()
    return {int(re.split(r"\s+", line)[3].rpartition(":")[2]) for line in lines if '"systemd"' in line}


def test_restarts_of_target_refuse_no_connection(serving: Machine) -> None:
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
    assert ports_of_systemd(serving) >= TCP_PORTS
    serving.wait_until_served("default")


def test_sockets_of_a_daemon_restart_without_failure(serving: Machine, undo: Callable[..., object]) -> None:
    """The target is stopped, so that the Unix socket closes too."""
    undo(serving.wait_until_served, "default")
    undo(serving.systemctl, "start", TARGET)
    serving.systemctl("stop", TARGET)
    for daemon in ("queen-rbee", "pool-managerd"):
        for _restart in range(SOCKET_RESTARTS):
            serving.restart_sockets(f"systemctl restart {daemon}.socket {daemon}-metrics.socket {daemon}.service")
            assert failed_units(serving) == ""


def test_socket_restarts_although_its_port_is_still_held(serving: Machine, undo: Callable[..., object]) -> None:
    """A child that systemd has just forked holds all its sockets for a moment, on a busy machine for longer."""
    undo(serving.wait_until_served, "default")
    undo(serving.systemctl, "restart", "pool-managerd.socket", "pool-managerd.service")
    with held_port(serving.container.init, serving.pool_manager.port):
        serving.systemctl("restart", "pool-managerd.socket", "pool-managerd.service")
        assert failed_units(serving) == ""
    assert serving.pool_manager.get("/health").status == 200
    assert serving.pool_manager.port in ports_of_systemd(serving)


def test_target_stops_while_clients_connect(serving: Machine, undo: Callable[..., object]) -> None:
    undo(serving.wait_until_served, "default")
    undo(serving.systemctl, "start", TARGET)

    def connect() -> None:
        with suppress(OSError, HTTPException):
            serving.queen.get("/health")

    with under_load(connect):
        serving.systemctl("stop", TARGET)
        until(lambda: active_units(serving) == "", "everything to stop", explain=serving.recent)


def logged(machine: Machine, pid: str, words: str) -> bool:
    return words in machine.messages(f"_PID={pid}")


def test_sighup_stops_no_daemon(serving: Machine) -> None:
    before = [serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS]
    for daemon, pid in zip(DAEMONS, before, strict=True):
        serving.systemctl("kill", "--kill-whom=main", "--signal=HUP", f"{daemon}.service")
        until(partial(logged, serving, pid, "has reloaded its configuration"), f"{daemon} to reload")
    assert [serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS] == before
    assert complete(serving.queen, placement={"mode": "pin", "pin_pool_id": "default"}).last.name == "end"


@pytest.mark.parametrize("daemon", DAEMONS)
def test_daemon_is_restarted_after_clean_exit(serving: Machine, daemon: str) -> None:
    unit = f"{daemon}.service"
    before = serving.show(unit, "MainPID")
    serving.systemctl("kill", "--kill-whom=main", "--signal=TERM", unit)
    until(changed_from(before, lambda: serving.show(unit, "MainPID")), f"another {daemon}", explain=serving.recent)
    serving.wait_until_served("default")


ENV = "/etc/llama-orch/queen-rbee.env"
NEW_PORT = 8098


def edit_unit(machine: Machine, undo: Callable[..., object], unit: str, text: str) -> None:
    """Do the same as `systemctl edit` and restart socket and daemon. The change is undone when the test ends."""
    restart = "systemctl restart queen-rbee.socket queen-rbee.service"
    undo(machine.wait_until_served, "default")
    undo(machine.restart_sockets, restart)
    undo(machine.systemctl, "revert", unit)
    machine.container.write(f"/etc/systemd/system/{unit}.d/override.conf", text)
    machine.systemctl("daemon-reload")
    machine.restart_sockets(restart)


def event_messages(machine: Machine, event: str) -> str:
    """Return the messages of an event of the current queen-rbee process."""
    pid = machine.show("queen-rbee.service", "MainPID")
    return machine.messages(f"LLORCH_EVENT={event}", f"_PID={pid}")


def test_socket_drop_in_moves_queen(serving: Machine, undo: Callable[..., object]) -> None:
    edit_unit(serving, undo, "queen-rbee.socket", f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{NEW_PORT}\n")
    assert f"ready on 127.0.0.1:{NEW_PORT}" in event_messages(serving, "daemon_ready")
    assert "/etc/systemd/system/queen-rbee.socket.d/override.conf sets" in event_messages(serving, "socket_disagrees")
    assert Client(serving.container, NEW_PORT).get("/health").status == 200
    assert "ready" in serving.container.check("orchctl", "status"), "orchctl uses the Unix socket"


def test_address_in_service_drop_in_is_reported_with_file(serving: Machine, undo: Callable[..., object]) -> None:
    text = f"[Service]\nEnvironment=ORCHESTRATORD_BIND_ADDR=127.0.0.1:{NEW_PORT}\n"
    edit_unit(serving, undo, "queen-rbee.service", text)
    assert "ready on 127.0.0.1:8080" in event_messages(serving, "daemon_ready")
    disagrees = event_messages(serving, "socket_disagrees")
    assert "/etc/systemd/system/queen-rbee.service.d/override.conf sets ORCHESTRATORD_BIND_ADDR" in disagrees
    serving.container.check("rm", "/etc/systemd/system/queen-rbee.service.d/override.conf")
    undo(serving.container.write, ENV, serving.container.path(ENV).read_text(), mode=0o640)
    serving.set_variable(ENV, "ORCHESTRATORD_BIND_ADDR", f"127.0.0.1:{NEW_PORT}")
    serving.restart_sockets(disagrees.rpartition("then: ")[2])
    assert f"ready on 127.0.0.1:{NEW_PORT}" in event_messages(serving, "daemon_ready")
    assert event_messages(serving, "socket_disagrees") == ""


def test_address_added_later_is_served(serving: Machine, undo: Callable[..., object]) -> None:
    address = "10.77.3.3"
    edit_unit(serving, undo, "queen-rbee.socket", f"[Socket]\nListenStream=\nListenStream={address}:8080\n")
    assert f"{address}:8080: no interface has this address yet" in serving.messages("--unit=queen-rbee.service")
    undo(serving.container.check, "ip", "address", "del", f"{address}/32", "dev", "lo")
    serving.container.check("ip", "address", "add", f"{address}/32", "dev", "lo")
    assert "ok" in serving.container.check("curl", "--silent", "--fail", f"http://{address}:8080/health")


def test_overrides_of_the_manual_work(serving: Machine) -> None:
    for example in Page(UNITS_PAGE).examples():
        before, _, edited = example.partition("# systemctl edit ")
        unit, *rest = edited.splitlines()
        serving.container.check("sh", "-c", before.removeprefix("# "))
        commands = [line.removeprefix("# ") for line in rest if line.startswith("# ")]
        drop_in = "\n".join(line for line in rest if not line.startswith("# "))
        serving.container.write(f"/etc/systemd/system/{unit}.d/override.conf", drop_in)
        serving.systemctl("daemon-reload")
        for command in commands:
            serving.restart_sockets(command)
        serving.systemctl("revert", unit)
        for command in commands:
            serving.restart_sockets(command)
    assert "override.conf" not in serving.messages("_PID=1", "--priority=warning")
    serving.wait_until_served("default")


TOKEN = "a-token-that-orchctl-lacks"


def test_root_and_group_need_no_token_but_others_do(serving: Machine, undo: Callable[..., object]) -> None:
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


def test_request_suspends_the_machine_only_if_enabled(serving: Machine, undo: Callable[..., object]) -> None:
    """A container cannot be suspended: another command says that it would be."""
    request = f"/run/pool-managerd/{REQUEST}"
    create = ("setpriv", "--reuid=pool-managerd", "--clear-groups", "touch", request)
    assert serving.show("llama-orch-suspend.path", "UnitFileState") == "disabled"
    serving.container.check(*create)
    serving.systemctl("restart", "pool-managerd.service")
    serving.wait_until_served("default")
    assert not serving.container.path(request).exists()  # of an earlier run: an enabled unit must not find it
    assert serving.show("llama-orch-suspend.service", "ExecMainStartTimestampMonotonic") == "0"
    undo(serving.systemctl, "revert", "llama-orch-suspend.service")
    serving.drop_in("llama-orch-suspend.service", "[Service]\nExecStart=\nExecStart=echo suspended\n")
    undo(serving.systemctl, "disable", "--now", "llama-orch-suspend.path")
    serving.systemctl("enable", "--now", "llama-orch-suspend.path")
    for _time in range(2):
        serving.container.check(*create)
        until(lambda: not serving.container.path(request).exists(), "the request to be taken", explain=serving.recent)
    until(
        lambda: serving.messages("SYSLOG_IDENTIFIER=llama-orch-suspend").count("suspended") == 2,
        "two suspensions",
        explain=serving.recent,
    )
    assert failed_units(serving) == ""


def test_suspension_reaches_logind_from_its_sandbox(serving: Machine) -> None:
    """logind refuses to suspend a container, and systemctl says so after it has looked for inhibitor locks."""
    serving.systemctl("start", "llama-orch-suspend.service")
    until(
        lambda: "Call to Suspend failed" in serving.messages(OF_SYSTEMCTL),
        "the refusal",
        explain=serving.recent,
    )
    assert failed_units(serving) == ""


def test_pool_managerd_may_hold_an_inhibitor_lock(serving: Machine) -> None:
    hold = (
        "import trio\nfrom pool_managerd.power.sleep_lock import SleepLock\nlock = SleepLock()\n"
        "trio.run(lock.hold, 'a task')\ntrio.run(trio.sleep_forever)"
    )
    python = ("/usr/lib/llama-orch/bin/python3", "-I", "-c", hold)
    serving.container.check("systemd-run", "--quiet", "--unit=lock-holder", "--uid=pool-managerd", *python)
    listed = ("systemd-inhibit", "--list", "--no-legend", "--no-pager")
    until(
        lambda: "pool-managerd" in serving.container.check(*listed),
        "the lock",
        explain=lambda: serving.messages("_SYSTEMD_UNIT=lock-holder.service"),
    )
    serving.systemctl("start", "llama-orch-suspend.service")
    until(
        lambda: 'Operation inhibited by "pool-managerd"' in serving.messages(OF_SYSTEMCTL),
        "the lock to be respected",
        explain=serving.recent,
    )
    serving.systemctl("stop", "lock-holder.service")
    until(
        lambda: "pool-managerd" not in serving.container.check(*listed), "the end of the lock", explain=serving.recent
    )


def test_batch_is_run_and_fetched_by_the_package(serving: Machine, undo: Callable[..., object]) -> None:
    body = {"model": "default", "prompt": "the river", "max_tokens": 4}
    requests = [{"custom_id": str(each), "method": "POST", "url": "/v1/completions", "body": body} for each in range(5)]
    serving.container.write("/root/batch.jsonl", "".join(f"{json.dumps(each)}\n" for each in requests))
    batch = json.loads(serving.container.check("orchctl", "batch", "submit", "--wait", "--json", "/root/batch.jsonl"))
    assert batch["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
    serving.systemctl("restart", "queen-rbee.service")
    results = serving.container.check("orchctl", "batch", "fetch", batch["id"]).splitlines()
    assert {json.loads(line)["custom_id"] for line in results} == {"0", "1", "2", "3", "4"}


def test_key_of_a_user_lives_from_add_to_revoke(serving: Machine, undo: Callable[..., object]) -> None:
    undo(serving.container.run, "rm", "/etc/llama-orch/keys.toml")
    added = serving.container.check("orchctl", "key", "add", "ada", "--models", "default", "--json")
    secret = json.loads(added)["secret"]
    user = Client(serving.container, token=secret)
    fields = {"prompt": "the river", "max_tokens": 2}
    assert user.post("/v1/completions", {"model": "default", **fields}).status == 200
    assert user.post("/v1/completions", {"model": "slow", **fields}).status == 403
    assert user.post("/v2/pools/default/drain", {}).status == 403
    assert Client(serving.container, token="unknown").get("/v1/models").status == 401
    assert "ada" in serving.container.check("orchctl", "usage")
    serving.container.check("orchctl", "key", "revoke", "ada")
    assert secret not in serving.container.check("journalctl", "--no-pager", "--output=export")
    assert serving.queen.get("/health").status == 200
