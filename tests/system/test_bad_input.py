"""Mistakes of an operator on a booted machine, and where they are reported."""

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

RELEASE = "bookworm"

TRUNCATED = "/srv/truncated.gguf"
TAKEN_PORT = 18999
PERIOD_S = 15
"""Less than the first five delays between attempts together (0.5 to 8 s). A busy machine only adds to them."""
UNITS = {daemon: f"{daemon}.service" for daemon in DAEMONS}


@pytest.fixture(scope="module")
def misconfigured(stocked: Machine, llama_server_tar: Archive, tiny_model: Path) -> Machine:
    """A machine with one valid pool and four pools that fail, each for a different reason."""
    data = tiny_model.read_bytes()
    stocked.container.write(TRUNCATED, data[: len(data) // 2])
    server = ("systemd-run", "--unit=server", "python3", "-m", "http.server", str(TAKEN_PORT))
    stocked.container.check(*server, "--bind", "127.0.0.1")
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


def wait_for_failure(machine: Machine, pool_id: str) -> str:
    """Wait until the pool fails, and return its last error from pool-managerd, which orchctl must also show."""
    error = until(
        lambda: error_of(machine.pool(pool_id)),
        f"pool {pool_id} to fail",
        60,
        lambda: f"{machine.pool(pool_id)}\n{machine.recent()}",
    )
    # The state changes briefly between two attempts.
    until(lambda: error_of(listed(machine).get(pool_id, {})) == error, f"orchctl to show that {pool_id} failed")
    return error


def listed(machine: Machine) -> dict[str, dict[str, Any]]:
    """Return the pools in the output of `orchctl pools --json`, by id."""
    shown = json.loads(machine.container.check("orchctl", "pools", "--json"))
    return {pool["pool_id"]: pool for pool in shown["pools"]}


def error_of(pool: dict[str, Any]) -> str | None:
    return str(pool["last_error"]) if pool.get("state") == "failed" else None


def test_valid_pool_serves_among_failed_ones(misconfigured: Machine) -> None:
    misconfigured.wait_until_served("good")
    assert complete(misconfigured.queen).last.name == "end"


def test_model_with_wrong_checksum_is_refused(misconfigured: Machine, tiny_model: Path) -> None:
    error = wait_for_failure(misconfigured, "wrong-checksum")
    assert hashlib.sha256(tiny_model.read_bytes()).hexdigest()[:12] in error
    assert TINY in error


def test_missing_model_is_named(misconfigured: Machine) -> None:
    assert "/srv/there-is-none.gguf" in wait_for_failure(misconfigured, "missing")


def test_truncated_model_fails_with_message_of_engine(misconfigured: Machine) -> None:
    error = wait_for_failure(misconfigured, "truncated")
    own = misconfigured.messages("--unit=llama-engine@truncated.service")
    assert "corrupted or incomplete" in own
    assert "corrupted or incomplete" in error or TRUNCATED in error


def test_failed_engine_is_not_restarted_in_a_loop(misconfigured: Machine) -> None:
    wait_for_failure(misconfigured, "truncated")
    starts = misconfigured.journal("--unit=llama-engine@truncated.service", "JOB_TYPE=start", "JOB_RESULT=done")
    times = [int(start["__REALTIME_TIMESTAMP"]) / 1e6 for start in starts]
    assert 1 <= len([time for time in times if time < times[0] + PERIOD_S]) <= 5


def test_port_in_use_is_named_and_retried(misconfigured: Machine) -> None:
    assert str(TAKEN_PORT) in wait_for_failure(misconfigured, "taken-port")
    misconfigured.systemctl("stop", "server.service")
    misconfigured.wait_until_served("taken-port")


def test_pool_recovers_from_full_disk(misconfigured: Machine, undo: Callable[..., object]) -> None:
    # the socket too, because pool-managerd asks through it, which would start the daemon again
    cache, provisioner = "/var/cache/llama-orch", ("engine-provisioner-local.socket", UNITS["engine-provisioner"])
    undo(misconfigured.systemctl, "start", *provisioner)
    undo(misconfigured.container.check, "umount", "--lazy", cache)  # lazy, because an engine runs from there
    undo(misconfigured.systemctl, "stop", *provisioner)
    misconfigured.systemctl("stop", *provisioner, "llama-engine@good.service")
    misconfigured.container.check("mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", cache)
    misconfigured.systemctl("start", *provisioner)
    assert "No space left on device" in wait_for_failure(misconfigured, "good")
    misconfigured.container.check("mount", "-o", "remount,size=500m", cache)
    misconfigured.wait_until_served("good")


def test_journal_explains_failed_pool(misconfigured: Machine) -> None:
    wait_for_failure(misconfigured, "missing")
    match = f"MESSAGE_ID={ENGINE_FAILED.message_id}"
    explained = misconfigured.container.check("journalctl", "-x", "--no-pager", match, "POOL_ID=missing")
    assert "/srv/there-is-none.gguf" in explained
    assert "journalctl -u llama-engine@missing" in explained


def test_all_invalid_variables_are_reported_at_start(stocked: Machine, undo: Callable[..., object]) -> None:
    file, unit = "/etc/llama-orch/queen-rbee.env", UNITS["queen-rbee"]
    shipped = stocked.container.path(file).read_text()
    undo(stocked.systemctl, "reset-failed", unit)
    undo(stocked.container.path(file).write_text, shipped)
    invalid = {
        "ORCHD_ADMISSION_CAPACITY": "0",
        "ORCHESTRATORD_PLACEMENT_STRATEGY": "best",
        "ORCHD_HANDOFF_WATCH_INTERVAL_MS": "5",
    }
    for name, value in invalid.items():
        stocked.set_variable(file, name, value)

    assert stocked.container.run("systemctl", "restart", unit).status != 0
    # a client's connection may start it once more, so ExecMainStatus is 78 only for a moment
    until(lambda: "status=78/CONFIG" in stocked.messages(f"--unit={unit}", "--since=-1min"), "the status 78")
    until(lambda: stocked.show(unit, "SubState") == "failed", "the unit to fail", explain=stocked.recent)
    assert stocked.show(unit, "NRestarts") == "0"
    refused = stocked.messages(f"MESSAGE_ID={CONFIGURATION_REFUSED.message_id}", f"--unit={unit}")
    for name, value in invalid.items():
        assert re.search(rf"{name}.*\b{value}\b", refused), refused
    allowed = ("1 to 10000", "round-robin, least-loaded or random", "100 to 10000")
    for words in allowed:
        assert words in refused


def test_pools_file_error_has_line_and_key(
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
    # the unit that watches the file lets the socket start the daemon again, so ExecMainStatus is 78 only for a moment
    until(lambda: "status=78/CONFIG" in stocked.messages(f"--unit={unit}", "--since=-1min"), "the status 78")
    assert stocked.show(unit, "NRestarts") == "0"
    refused = stocked.messages(f"MESSAGE_ID={POOLS_FILE_REFUSED.message_id}")
    assert f"{POOLS_FILE}:{line}: pools[0].slotz" in refused
    assert "slots" in refused, "the message names the allowed keys"


def test_port_of_daemon_used_by_other_program_is_named(stocked: Machine, undo: Callable[..., object]) -> None:
    sockets = ("queen-rbee.socket", "queen-rbee-local.socket", "queen-rbee-metrics.socket")
    undo(stocked.systemctl, "start", *sockets)
    stocked.systemctl("stop", "queen-rbee.service", *sockets)
    undo(stocked.systemctl, "stop", "squatter.service")
    stocked.container.check("systemd-run", "--unit=squatter", "python3", "-m", "http.server", "8080")
    until(lambda: stocked.container.run("curl", "-s", "http://127.0.0.1:8080/").status == 0, "the server to listen")

    assert stocked.container.run("systemctl", "start", "queen-rbee.socket").status != 0
    assert "127.0.0.1:8080" in stocked.messages("--unit=queen-rbee.socket")
    assert "Address already in use" in stocked.messages("--unit=queen-rbee.socket")
