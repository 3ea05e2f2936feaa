"""orchctl on a serving machine: logs, events, doctor, config, bench and support-bundle."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.conftest import TINY
from tests.system.lab.client import outcome, submit
from tests.system.lab.machine import DAEMONS, PROVISIONER_ENV, Machine

RELEASE = "trixie"

ON_DEFAULT = {"placement": {"mode": "pin", "pin_pool_id": "default"}}
QUEEN_ENV = "/etc/llama-orch/queen-rbee.env"
TOKEN = "a-token-that-must-stay-here"


def orchctl(machine: Machine, *words: str) -> str:
    """Run orchctl as root, with success, and return its output."""
    return machine.container.check("orchctl", *words)


def orchctl_json(machine: Machine, *words: str) -> Any:
    return json.loads(orchctl(machine, *words, "--json"))


def problems(machine: Machine) -> list[dict[str, str]]:
    """Return the problems that `orchctl doctor` finds."""
    result = machine.container.run("orchctl", "doctor", "--json")
    report = json.loads(result.stdout)
    found = [each for each in report["findings"] if each["level"] == "problem"]
    assert result.status == (69 if found else 0), result.stderr
    return found


def test_request_is_followed_by_task_and_correlation_id(serving: Machine) -> None:
    task_id = submit(serving.queen, max_tokens=4, **ON_DEFAULT)
    assert outcome(serving.queen, task_id).last.name == "end"
    correlation = orchctl_json(serving, "tasks", task_id)["correlation_id"]
    by_task = orchctl(serving, "logs", task_id)
    assert re.fullmatch(r"[-0-9]{10} [0-9:.]{12} queen-rbee: task \S+ done on pool default: 4 tokens in .*\n", by_task)
    assert orchctl(serving, "logs", correlation) == by_task
    entry = orchctl_json(serving, "logs", task_id)
    assert entry.items() >= {"event": "task_ended", "correlation_id": correlation, "pool_id": "default"}.items()
    assert serving.container.run("orchctl", "logs", "--since=0s", task_id).stdout == ""


def test_pool_has_lines_of_daemons_engine_and_systemd(serving: Machine) -> None:
    text = orchctl(serving, "logs", "default")
    assert re.search(r" engine-provisioner: engine of pool default runs at ", text)
    assert re.search(r" llama-engine@default: .*listening", text)
    assert re.search(r" systemd: Started .*llama-engine@default", text)
    assert " pool slow" not in text


def test_user_without_permission_is_told_the_way_out(serving: Machine) -> None:
    result = serving.container.run("runuser", "-u", "nobody", "--", "orchctl", "logs", "default")
    assert (result.status, result.stdout) == (77, "")
    assert "systemd-journal" in result.stderr


def test_unknown_id_is_an_error(serving: Machine) -> None:
    result = serving.container.run("orchctl", "logs", "no-such-thing")
    assert (result.status, result.stdout) == (66, "")
    assert "nothing here knows no-such-thing" in result.stderr


def test_events_come_from_queen_and_from_journal(serving: Machine) -> None:
    assert re.search(r" daemon_ready: ", orchctl(serving, "events"))
    assert re.search(r" engine-provisioner: engine_started: ", orchctl(serving, "events", "--journal"))


def test_doctor_finds_nothing_on_a_serving_machine(serving: Machine) -> None:
    assert problems(serving) == []
    text = orchctl(serving, "doctor")
    for words in ("engine-provisioner runs", "port 8080 of queen-rbee is served", "every engine on the disk finds its"):
        assert words in text
    assert "not checked: no permission" not in text


def test_doctor_finds_a_dead_engine_provisioner(serving: Machine, undo: Callable[..., object]) -> None:
    undo(serving.wait_until_served, "default")
    undo(serving.systemctl, "start", "engine-provisioner-local.socket", "engine-provisioner.service")
    serving.systemctl("stop", "engine-provisioner-local.socket", "engine-provisioner.service")
    (found,) = problems(serving)
    assert found["text"] == "engine-provisioner.service does not run"
    assert found["mend"] == "systemctl start engine-provisioner.service"


def test_doctor_names_the_property_that_hides_a_model(serving: Machine, undo: Callable[..., object]) -> None:
    undo(serving.systemctl, "daemon-reload")
    undo(serving.container.check, "rm", "-r", "/run/systemd/system/llama-engine@.service.d")
    serving.drop_in("llama-engine@.service", "[Service]\nInaccessiblePaths=/srv\n")
    found = [each for each in problems(serving) if each["subject"] == "pool default"]
    assert f"its model {TINY} is hidden from llama-engine@.service by InaccessiblePaths=/srv" in found[0]["text"]
    assert "systemctl edit llama-engine@.service" in found[0]["mend"]


def test_doctor_names_directory_that_engine_cannot_search(serving: Machine, undo: Callable[..., object]) -> None:
    undo(serving.container.check, "chmod", "755", "/srv")
    serving.container.check("chmod", "700", "/srv")
    texts = [each["text"] + each["mend"] for each in problems(serving) if each["subject"] == "pool default"]
    assert any("/srv (mode 0700)" in text and "chmod o+x /srv" in text for text in texts), texts


def test_doctor_names_program_on_a_port(serving: Machine, undo: Callable[..., object]) -> None:
    """Its sockets are stopped, too: otherwise the doctor's request would activate queen-rbee."""
    names = ("queen-rbee.socket", "queen-rbee-local.socket", "queen-rbee-metrics.socket", "queen-rbee.service")
    undo(serving.wait_until_served, "default")
    undo(serving.restart_sockets, f"systemctl start {' '.join(names)}")
    serving.systemctl("stop", *names)
    undo(serving.systemctl, "stop", "squatter.service")
    squat = "import socket, time; s = socket.create_server(('127.0.0.1', 9090)); time.sleep(600)"
    serving.container.check("systemd-run", "--quiet", "--unit=squatter", "/usr/bin/python3", "-c", squat)
    serving.container.check("sh", "-c", "until ss -ltn | grep -q :9090; do :; done")
    texts = [each["text"] for each in problems(serving) if each["subject"] == "ports"]
    assert any(re.fullmatch(r"port 9090 of queen-rbee is used by python3\S* \(pid \d+\)", text) for text in texts), (
        texts
    )


def test_setting_is_attributed_to_file_line_and_process(serving: Machine, undo: Callable[..., object]) -> None:
    undo(serving.systemctl, "restart", "queen-rbee.service")
    undo(serving.systemctl, "revert", "queen-rbee.service")
    drop_in = "/etc/systemd/system/queen-rbee.service.d/o.conf"
    serving.container.write(drop_in, "[Service]\nEnvironment=RUST_LOG=debug\n")
    serving.systemctl("daemon-reload")
    (daemon,) = orchctl_json(serving, "config", "show", "queen-rbee")["daemons"]
    settings = {each["variable"]: each for each in daemon["settings"]}
    log = settings["RUST_LOG"]
    assert (log["value"], log["source"]) == ("debug", f"{drop_in}:2")
    assert log["running"] == "info (default)"
    source = settings["ORCHD_RUNTIME_DIR"]["source"]
    path, _colon, line = source.rpartition(":")
    assert serving.container.path(path).read_text().splitlines()[int(line) - 1].startswith("ORCHD_RUNTIME_DIR=")
    serving.systemctl("restart", "queen-rbee.service")
    serving.wait_until_served("default")
    assert "until it is restarted" not in orchctl(serving, "config", "show", "queen-rbee")


def test_bench_counts_tokens_of_a_real_engine(serving: Machine) -> None:
    words = ("--clients", "1,2", "--requests", "4", "--tokens", "8", "--prompt-tokens", "20")
    runs = orchctl_json(serving, "bench", "default", *words)["runs"]
    assert [(run["clients"], run["requests"], run["errors"]) for run in runs] == [(1, 4, 0), (2, 4, 0)]
    for run in runs:
        assert run["tokens_out"] == 4 * 8
        assert run["tokens_in"] >= 4 * 20
        assert 0 < run["ttft_p50_ms"] <= run["ttft_p99_ms"]
        assert run["tokens_per_s"] > 0


@pytest.fixture
def secretive(serving: Machine, undo: Callable[..., object]) -> Machine:
    """The machine with secrets in its environment files, a credential, a pools file and the journal."""
    for env in (QUEEN_ENV, PROVISIONER_ENV):
        undo(serving.container.write, env, serving.container.path(env).read_text(), mode=0o640)
    serving.set_variable(QUEEN_ENV, "OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{TOKEN}-1")
    serving.set_variable(PROVISIONER_ENV, "AWS_SECRET_ACCESS_KEY", f"{TOKEN}-2")
    undo(serving.container.check, "rm", "/etc/llama-orch/hf-token")
    serving.container.write("/etc/llama-orch/hf-token", f"{TOKEN}-3\n", mode=0o600)
    for words in (f"hf token {TOKEN}-3", f"Authorization: Bearer {TOKEN}-4"):
        serving.container.check("systemd-cat", "--identifier=queen-rbee", "echo", words)
    return serving


def test_support_bundle_has_journal_and_no_secret(secretive: Machine) -> None:
    files = orchctl_json(secretive, "support-bundle", "-o", "/root/bundle.tar.gz")["files"]
    assert secretive.container.check("stat", "-c", "%a %U", "/root/bundle.tar.gz") == "600 root\n"
    text = secretive.container.check("sh", "-c", "tar -xzOf /root/bundle.tar.gz; rm /root/bundle.tar.gz")
    assert TOKEN not in text
    assert "OTEL_EXPORTER_OTLP_HEADERS=***" in text
    assert {f"journal/{daemon}.txt" for daemon in DAEMONS} <= set(files)
    assert all(files[f"journal/{daemon}.txt"] > 100 for daemon in DAEMONS)
    assert "engine of pool default runs at" in text
