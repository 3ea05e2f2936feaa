"""systemctl reload, and addresses that an administrator sets with systemctl edit."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_orch.settings.tls import CA_FILE, CERT_FILE, KEY_FILE, TlsFiles
from tests.certificates import create_ca
from tests.system.lab.client import Client, complete
from tests.system.lab.container import Result
from tests.system.lab.load import under_load
from tests.system.lab.machine import DAEMONS, Machine
from tests.system.lab.waiting import until

RELEASE = "bookworm"

QUEEN = "queen-rbee.service"
QUEEN_ENV = "/etc/llama-orch/queen-rbee.env"
RELOADS = 3
Undo = Callable[..., object]


def event(machine: Machine, name: str, unit: str) -> str:
    """Return the messages of an event of the unit's current process."""
    return machine.messages(f"LLORCH_EVENT={name}", f"_PID={machine.show(unit, 'MainPID')}")


def edit(machine: Machine, undo: Undo, daemon: str, **variables: str) -> None:
    """Set variables in the environment file of a daemon. File and daemon are restored when the test ends."""
    file = f"/etc/llama-orch/{daemon}.env"
    undo(machine.wait_until_served, "default")
    undo(machine.systemctl, "restart", f"{daemon}.service")
    undo(machine.container.path(file).write_text, machine.container.path(file).read_text())
    for name, value in variables.items():
        machine.set_variable(file, name, value)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_log_level_of_environment_file_is_applied(serving: Machine, undo: Undo, daemon: str) -> None:
    unit = f"{daemon}.service"
    pid = serving.show(unit, "MainPID")
    edit(serving, undo, daemon, RUST_LOG="warn,llama_orch=debug")
    serving.systemctl("reload", unit)
    assert "RUST_LOG: info is now warn,llama_orch=debug" in event(serving, "configuration_reloaded", unit)
    assert (serving.show(unit, "MainPID"), serving.show(unit, "SubState")) == (pid, "running")
    assert serving.show(unit, "StatusText")


def test_variables_that_need_restart_are_named(serving: Machine, undo: Undo) -> None:
    edit(serving, undo, "queen-rbee", ORCHD_ADMISSION_CAPACITY="7", ORCHESTRATORD_PLACEMENT_STRATEGY="random")
    serving.systemctl("reload", QUEEN)
    said = event(serving, "reload_needs_restart", QUEEN)
    assert "ORCHD_ADMISSION_CAPACITY" in said
    assert "ORCHESTRATORD_PLACEMENT_STRATEGY" in said
    assert said.count("\n") == 0, "one event"


def test_invalid_variable_fails_the_reload_only(serving: Machine, undo: Undo) -> None:
    edit(serving, undo, "queen-rbee", ORCHD_ADMISSION_CAPACITY="0", RUST_LOG="debug")
    assert serving.container.run("systemctl", "reload", QUEEN).status != 0
    said = event(serving, "reload_refused", QUEEN)
    assert "ORCHD_ADMISSION_CAPACITY=0: " in said
    assert "Allowed: " in said
    assert serving.show(QUEEN, "SubState") == "running"
    assert complete(serving.queen).last.name == "end"


def test_reloads_under_load_lose_no_request(serving: Machine) -> None:
    before = [serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS]

    def ask() -> str | None:
        last = complete(serving.queen, max_tokens=4).last
        return None if last.name == "end" else str(last)

    with under_load(ask) as load:
        for _reload in range(RELOADS):
            serving.systemctl("reload", *(f"{daemon}.service" for daemon in DAEMONS))
            load.wait_for_more()
    assert load.failures == {}
    assert [serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS] == before


def put(machine: Machine, issued: TlsFiles, *, key: bool = True) -> None:
    """Copy a certificate to the path that queen-rbee uses, with its key if `key`."""
    assert issued.cert
    assert issued.key
    machine.container.write("/etc/llama-orch/tls.pem", issued.cert.read_bytes())
    if key:
        machine.container.write("/etc/llama-orch/tls.key", issued.key.read_bytes())


def ask_over_tls(machine: Machine, ca: str) -> Result:
    return machine.container.run("curl", "--silent", "--show-error", "--cacert", ca, "https://127.0.0.1:8080/health")


def test_renewed_certificate_is_used_and_mismatched_is_not(serving: Machine, undo: Undo, tmp_path: Path) -> None:
    first, second = create_ca(tmp_path, "first"), create_ca(tmp_path, "second")
    for ca in (first, second):
        serving.container.write(f"/srv/{ca.name}.pem", ca.certificate.read_bytes())
    put(serving, first.issue("one"))
    edit(serving, undo, "queen-rbee", **{CERT_FILE: "/etc/llama-orch/tls.pem", KEY_FILE: "/etc/llama-orch/tls.key"})
    serving.systemctl("restart", QUEEN)
    assert '"ok"' in ask_over_tls(serving, "/srv/first.pem").stdout

    put(serving, second.issue("two"), key=False)
    assert serving.container.run("systemctl", "reload", QUEEN).status != 0
    assert "is not the key of the first certificate" in event(serving, "reload_refused", QUEEN)
    assert '"ok"' in ask_over_tls(serving, "/srv/first.pem").stdout

    put(serving, second.issue("two"))
    serving.systemctl("reload", QUEEN)
    assert f"/etc/llama-orch/tls.pem ({CERT_FILE}), which ends on " in event(serving, "configuration_reloaded", QUEEN)
    assert '"ok"' in ask_over_tls(serving, "/srv/second.pem").stdout
    assert ask_over_tls(serving, "/srv/first.pem").status != 0
    assert CA_FILE not in event(serving, "configuration_reloaded", QUEEN)


def override(machine: Machine, undo: Undo, unit: str, text: str, *, name: str = "override", daemon: str) -> None:
    """Do the same as `systemctl edit` and restart sockets and daemon. The change is undone when the test ends."""
    restart = f"systemctl restart {daemon}.socket {daemon}-metrics.socket {daemon}.service"
    undo(machine.wait_until_served, "default")
    undo(machine.restart_sockets, restart)
    undo(machine.systemctl, "revert", unit)
    machine.container.write(f"/etc/systemd/system/{unit}.d/{name}.conf", text)
    machine.systemctl("daemon-reload")
    machine.restart_sockets(restart)


@pytest.mark.parametrize(("daemon", "port"), [("queen-rbee", 8098), ("pool-managerd", 9298)])
@pytest.mark.parametrize("name", ["override", "10-port"])
def test_listen_stream_of_any_drop_in_is_honoured(
    serving: Machine, undo: Undo, daemon: str, port: int, name: str
) -> None:
    text = f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n"
    override(serving, undo, f"{daemon}.socket", text, name=name, daemon=daemon)
    assert f"ready on 127.0.0.1:{port}" in event(serving, "daemon_ready", f"{daemon}.service")
    assert f"{name}.conf sets ListenStream=" in event(serving, "socket_disagrees", f"{daemon}.service")
    assert Client(serving.container, port).get("/health").status == 200


def test_additional_listen_stream_is_served_as_well(serving: Machine, undo: Undo) -> None:
    override(serving, undo, "queen-rbee.socket", "[Socket]\nListenStream=127.0.0.1:8097\n", daemon="queen-rbee")
    assert event(serving, "socket_disagrees", QUEEN) == ""
    assert [Client(serving.container, port).get("/health").status for port in (8080, 8097)] == [200, 200]


def test_metrics_socket_drop_in_is_honoured(serving: Machine, undo: Undo) -> None:
    text = "[Socket]\nListenStream=\nListenStream=127.0.0.1:9191\n"
    override(serving, undo, "pool-managerd-metrics.socket", text, daemon="pool-managerd")
    assert Client(serving.container, 9191).get("/metrics").status == 200
    assert "PROMETHEUS_METRICS_PORT" in event(serving, "socket_disagrees", "pool-managerd.service")


SITE = "/etc/site.env"


@pytest.mark.parametrize(
    ("daemon", "text", "sets"),
    [
        (
            "pool-managerd",
            "Environment=POOL_MANAGERD_BIND_ADDR=127.0.0.1:9298",
            "sets POOL_MANAGERD_BIND_ADDR, which does not move the socket: set it in",
        ),
        (
            "queen-rbee",
            f"EnvironmentFile={SITE}",
            "sets EnvironmentFile, which does not move the socket: set ORCHESTRATORD_BIND_ADDR in",
        ),
    ],
)
def test_address_for_the_service_alone_is_refused_in_words(
    serving: Machine, undo: Undo, daemon: str, text: str, sets: str
) -> None:
    """Both environment files leave the variable out, so that the drop-in has the last word."""
    file = f"/etc/llama-orch/{daemon}.env"
    serving.container.write(SITE, "ORCHESTRATORD_BIND_ADDR=127.0.0.1:8098\n")
    undo(serving.container.path(file).write_text, serving.container.path(file).read_text())
    without = re.sub(r"(?m)^(ORCHESTRATORD|POOL_MANAGERD)_BIND_ADDR=.*$", "", serving.container.path(file).read_text())
    serving.container.path(file).write_text(without)
    override(serving, undo, f"{daemon}.service", f"[Service]\n{text}\n", daemon=daemon)
    said = event(serving, "socket_disagrees", f"{daemon}.service")
    assert f"/etc/systemd/system/{daemon}.service.d/override.conf {sets} {file}" in said
    assert f"then: systemctl daemon-reload && systemctl restart {daemon}.socket {daemon}.service" in said
    until(lambda: serving.queen.get("/health").status == 200, "the queen to answer where it did")
