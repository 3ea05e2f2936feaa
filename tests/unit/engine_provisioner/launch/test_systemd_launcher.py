"""What the systemd side decides without a systemd; the rest is tested in a booted machine."""

from pathlib import Path

import pytest
import trio

from engine_provisioner.cleanup import retire_unwanted
from engine_provisioner.engine import Command
from engine_provisioner.launch.bus import BusError, system_bus
from engine_provisioner.launch.systemd_launcher import SystemdLauncher, in_charge, manner, unit_of
from engine_provisioner.launch.unit_manager import UnitState
from tests.unit.engine_provisioner.pools import pool


def state(active: str = "failed", code: int = 0, status: int = 0, result: str = "success") -> UnitState:
    return UnitState(
        active, job_pending=False, main_pid=1, exit_code=code, exit_status=status, result=result, invocation=""
    )


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (state(code=1, status=78), "ended with status 78"),
        (state(code=2, status=9, result="signal"), "was killed by SIGKILL"),
        (state(code=2, status=9, result="oom-kill"), "was killed by SIGKILL, out of memory"),
        (state(code=3, status=11), "was killed by SIGSEGV"),
        (state(result="resources"), "did not start (resources)"),
        (state("inactive"), "was stopped"),
        (state("active"), "still runs"),
    ],
)
def test_the_end_of_a_unit_is_said_in_words(ended: UnitState, words: str) -> None:
    assert manner(ended) == words


@pytest.mark.parametrize(
    ("active", "job", "settled"),
    [("active", False, True), ("failed", False, True), ("activating", False, False), ("inactive", True, False)],
)
def test_a_unit_has_settled_when_nothing_is_under_way(active: str, job: bool, settled: bool) -> None:
    assert UnitState(active, job, 0, 0, 0, "success", "").settled is settled


def test_systemd_is_used_only_by_a_service_of_its_own_with_a_launch_directory(tmp_path: Path) -> None:
    assert in_charge({"SYSTEMD_EXEC_PID": "5"}, 5, tmp_path)
    assert not in_charge({"SYSTEMD_EXEC_PID": "5"}, 6, tmp_path)
    assert not in_charge({}, 5, tmp_path)
    assert not in_charge({"SYSTEMD_EXEC_PID": "5"}, 5, tmp_path / "absent")


def test_units_are_named_after_their_pools() -> None:
    assert unit_of("my-pool") == "llama-engine@my-pool.service"


async def test_the_commands_of_earlier_engines_are_read_from_their_launch_files(tmp_path: Path) -> None:
    command = Command(("/e", "--port", "18081"), {"A": "b"})
    (tmp_path / "one.json").write_bytes(command.document())
    (tmp_path / "spoilt.json").write_bytes(b'{"argv": 1}')
    (tmp_path / ".one.json.draft").write_bytes(b"{")
    found = await SystemdLauncher(tmp_path).remembered()
    assert found == {"one": command}
    assert found["one"].port == 18081


async def test_without_a_bus_there_are_words_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/absent")
    with pytest.raises(BusError, match="system bus cannot be reached"):
        async with system_bus():
            pass
    with trio.fail_after(10):
        await retire_unwanted([pool()], SystemdLauncher(tmp_path))
    assert "engines of pools that are gone may still run" in caplog.text
