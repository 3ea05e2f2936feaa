"""What an operator can get wrong on a booted machine, and where the answer stands."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_orch.telemetry.events.provisioning import ENGINE_FAILED, POOLS_FILE_REFUSED
from llama_orch.telemetry.events.service import CONFIGURATION_REFUSED
from tests.engines.llama_server import Archive
from tests.system.conftest import TINY
from tests.system.lab.client import complete
from tests.system.lab.machine import DAEMONS, POOLS_FILE, TARGET, Machine, Pool
from tests.system.lab.waiting import until

TRUNCATED = "/srv/truncated.gguf"
TAKEN_PORT = 18999
UNITS = {daemon: f"{daemon}.service" for daemon in DAEMONS}


@pytest.fixture(scope="module")
def troubled(stocked: Machine, llama_server_tar: Archive, tiny_model: Path) -> Machine:
    """A machine with one good pool among four that cannot come up, each for a reason of its own."""
    data = tiny_model.read_bytes()
    stocked.container.write(TRUNCATED, data[: len(data) // 2])
    foreigner = ("systemd-run", "--unit=foreigner", "python3", "-m", "http.server", str(TAKEN_PORT))
    stocked.container.check(*foreigner, "--bind", "127.0.0.1")
    stocked.configure(
        llama_server_tar,
        Pool("wrong-checksum", TINY, checksum=hashlib.sha256(b"another model").hexdigest()),
        Pool("missing", "/srv/there-is-none.gguf"),
        Pool("truncated", TRUNCATED),
        Pool("taken-port", TINY, extra=f"ports = [{TAKEN_PORT}]"),
        Pool("good", TINY),
    )
    stocked.systemctl("start", TARGET)
    return stocked


def failed(machine: Machine, pool_id: str) -> str:
    """The pool's last error as pool-managerd tells it, once it failed; orchctl must tell the same."""
    error = until(
        lambda: error_of(machine.pool(pool_id)),
        f"pool {pool_id} to fail",
        60,
        lambda: f"{machine.pool(pool_id)}\n{machine.recent()}",
    )
    # between two tries the state is another for a moment
    until(lambda: error_of(listed(machine).get(pool_id, {})) == error, f"orchctl to show that {pool_id} failed")
    return error


def listed(machine: Machine) -> dict[str, dict[str, Any]]:
    """The pools as `orchctl pools --json` shows them, by id."""
    shown = json.loads(machine.container.check("orchctl", "pools", "--json"))
    return {pool["pool_id"]: pool for pool in shown["pools"]}


def error_of(pool: dict[str, Any]) -> str | None:
    return str(pool["last_error"]) if pool.get("state") == "failed" else None


def test_a_pool_among_bad_ones_serves(troubled: Machine) -> None:
    troubled.wait_until_served("good")
    assert complete(troubled.queen).last.name == "end"


def test_a_model_that_is_not_the_named_one_is_refused(troubled: Machine, tiny_model: Path) -> None:
    error = failed(troubled, "wrong-checksum")
    assert hashlib.sha256(tiny_model.read_bytes()).hexdigest()[:12] in error
    assert TINY in error


def test_a_model_that_is_missing_is_named(troubled: Machine) -> None:
    assert "/srv/there-is-none.gguf" in failed(troubled, "missing")


def test_a_truncated_model_fails_with_the_engines_own_words(troubled: Machine) -> None:
    error = failed(troubled, "truncated")
    own = troubled.messages("--unit=llama-engine@truncated.service")
    assert "corrupted or incomplete" in own
    assert "corrupted or incomplete" in error or TRUNCATED in error


def test_failures_do_not_loop(troubled: Machine) -> None:
    failed(troubled, "truncated")
    starts = troubled.journal("--unit=llama-engine@truncated.service", "JOB_TYPE=start", "JOB_RESULT=done")
    assert 1 <= len(starts) <= 5


def test_a_port_in_use_is_named_and_tried_again(troubled: Machine) -> None:
    assert str(TAKEN_PORT) in failed(troubled, "taken-port")
    troubled.systemctl("stop", "foreigner.service")
    troubled.wait_until_served("taken-port")


def test_a_full_disk_is_named_and_the_pool_comes_up_once_there_is_room(
    troubled: Machine, undo: Callable[..., object]
) -> None:
    cache, provisioner = "/var/cache/llama-orch", UNITS["engine-provisioner"]
    undo(troubled.systemctl, "start", provisioner)
    undo(troubled.container.check, "umount", "--lazy", cache)  # an engine runs from there
    undo(troubled.systemctl, "stop", provisioner)
    troubled.systemctl("stop", provisioner, "llama-engine@good.service")
    troubled.container.check("mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", cache)
    troubled.systemctl("start", provisioner)
    assert "No space left on device" in failed(troubled, "good")
    troubled.container.check("mount", "-o", "remount,size=500m", cache)
    troubled.wait_until_served("good")


def test_the_journal_explains_a_failed_pool(troubled: Machine) -> None:
    failed(troubled, "missing")
    match = f"MESSAGE_ID={ENGINE_FAILED.message_id}"
    explained = troubled.container.check("journalctl", "-x", "--no-pager", match, "POOL_ID=missing")
    assert "/srv/there-is-none.gguf" in explained
    assert "journalctl -u llama-engine@missing" in explained


def test_all_wrong_variables_are_named_at_once_and_end_the_start(stocked: Machine, undo: Callable[..., object]) -> None:
    file, unit = "/etc/llama-orch/queen-rbee.env", UNITS["queen-rbee"]
    shipped = stocked.container.path(file).read_text()
    undo(stocked.systemctl, "reset-failed", unit)
    undo(stocked.container.path(file).write_text, shipped)
    wrong = {
        "ORCHD_ADMISSION_CAPACITY": "0",
        "ORCHESTRATORD_PLACEMENT_STRATEGY": "best",
        "ORCHD_HANDOFF_WATCH_INTERVAL_MS": "5",
    }
    for name, value in wrong.items():
        stocked.set_variable(file, name, value)

    assert stocked.container.run("systemctl", "restart", unit).status != 0
    assert stocked.show(unit, "ExecMainStatus") == "78"
    assert (stocked.show(unit, "SubState"), stocked.show(unit, "NRestarts")) == ("failed", "0")
    refused = stocked.messages(f"MESSAGE_ID={CONFIGURATION_REFUSED.message_id}", f"--unit={unit}")
    for name, value in wrong.items():
        assert re.search(rf"{name}.*\b{value}\b", refused), refused
    allowed = ("1 to 10000", "round-robin, least-loaded or random", "100 to 10000")
    for words in allowed:
        assert words in refused


def test_a_wrong_pools_file_is_named_with_line_and_key(
    stocked: Machine, llama_server_tar: Archive, undo: Callable[..., object]
) -> None:
    unit = UNITS["engine-provisioner"]
    good = stocked.container.path(POOLS_FILE).read_text() if stocked.container.path(POOLS_FILE).exists() else ""
    undo(stocked.systemctl, "reset-failed", unit)
    undo(stocked.container.path(POOLS_FILE).write_text, good)
    stocked.configure(llama_server_tar, Pool("default", TINY, extra="slotz = 2"))
    lines = stocked.container.path(POOLS_FILE).read_text().splitlines()
    line = lines.index("slotz = 2") + 1

    assert stocked.container.run("systemctl", "restart", unit).status != 0
    assert stocked.show(unit, "ExecMainStatus") == "78"
    assert (stocked.show(unit, "SubState"), stocked.show(unit, "NRestarts")) == ("failed", "0")
    refused = stocked.messages(f"MESSAGE_ID={POOLS_FILE_REFUSED.message_id}")
    assert f"{POOLS_FILE}:{line}: pools[0].slotz" in refused
    assert "slots" in refused, "it says which keys are allowed"


def test_a_port_of_a_daemon_that_a_foreigner_holds_is_named(stocked: Machine, undo: Callable[..., object]) -> None:
    sockets = ("queen-rbee.socket", "queen-rbee-local.socket", "queen-rbee-metrics.socket")
    undo(stocked.systemctl, "start", *sockets)
    stocked.systemctl("stop", "queen-rbee.service", *sockets)
    undo(stocked.systemctl, "stop", "squatter.service")
    stocked.container.check("systemd-run", "--unit=squatter", "python3", "-m", "http.server", "8080")
    until(lambda: stocked.container.run("curl", "-s", "http://127.0.0.1:8080/").status == 0, "the foreigner to listen")

    assert stocked.container.run("systemctl", "start", "queen-rbee.socket").status != 0
    assert "127.0.0.1:8080" in stocked.messages("--unit=queen-rbee.socket")
    assert "Address already in use" in stocked.messages("--unit=queen-rbee.socket")
