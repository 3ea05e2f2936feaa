"""Parts of the systemd launcher that need no systemd; tests/system has the rest."""

from pathlib import Path

import pytest
import trio

from engine_provisioner.cleanup import stop_unconfigured
from engine_provisioner.engine import EngineCommand
from engine_provisioner.launch.systemd_launcher import SystemdLauncher, exit_manner, is_available, unit_of
from engine_provisioner.launch.unit_manager import UnitState
from llama_orch.service.bus import BusError, system_bus
from tests.unit.engine_provisioner.pools import pool


def state(active: str = "failed", code: int = 0, status: int = 0, result: str = "success") -> UnitState:
    return UnitState(
        active, job_pending=False, main_pid=1, exit_code=code, exit_status=status, result=result, invocation=""
    )


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        (state(code=1, status=78), "ended with status 78"),
        (state(code=2, status=9, result="signal"), "was killed by SIGKILL"),
        (state(code=2, status=9, result="oom-kill"), "was killed by SIGKILL, out of memory"),
        (state(code=3, status=11), "was killed by SIGSEGV"),
        (state(result="resources"), "did not start (resources)"),
        (state("inactive"), "was stopped"),
        (state("active"), "is still running"),
    ],
)
def test_exit_of_a_unit_is_described(ended: UnitState, text: str) -> None:
    assert exit_manner(ended) == text


@pytest.mark.parametrize(
    ("active", "job", "settled"),
    [("active", False, True), ("failed", False, True), ("activating", False, False), ("inactive", True, False)],
)
def test_unit_is_settled_without_job_or_transition(active: str, job: bool, settled: bool) -> None:
    assert UnitState(active, job, 0, 0, 0, "success", "").settled is settled


def test_systemd_is_used_only_as_service_with_launch_directory(tmp_path: Path) -> None:
    assert is_available({"SYSTEMD_EXEC_PID": "5"}, 5, tmp_path)
    assert not is_available({"SYSTEMD_EXEC_PID": "5"}, 6, tmp_path)
    assert not is_available({}, 5, tmp_path)
    assert not is_available({"SYSTEMD_EXEC_PID": "5"}, 5, tmp_path / "absent")


def test_unit_is_named_after_its_pool() -> None:
    assert unit_of("my-pool") == "llama-engine@my-pool.service"


async def test_known_commands_are_read_from_launch_files(tmp_path: Path) -> None:
    command = EngineCommand(("/e", "--port", "18081"), {"A": "b"})
    (tmp_path / "one.json").write_bytes(command.document())
    (tmp_path / "corrupt.json").write_bytes(b'{"argv": 1}')
    (tmp_path / ".one.json.draft").write_bytes(b"{")
    found = await SystemdLauncher(tmp_path).known_commands()
    assert found == {"one": command}
    assert found["one"].port == 18081


async def test_missing_bus_is_logged_without_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/absent")
    with pytest.raises(BusError, match="cannot connect to the system bus"):
        async with system_bus():
            pass
    with trio.fail_after(10):
        await stop_unconfigured([pool()], SystemdLauncher(tmp_path))
    assert "engines of removed pools may still be running" in caplog.text
