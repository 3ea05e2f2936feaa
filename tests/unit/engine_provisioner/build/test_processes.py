"""Programs of a build: their output, their limits, and the end of the whole tree."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from engine_provisioner.build.build_log import HALF_BYTES, BuildLog
from engine_provisioner.build.processes import GUARD, Job, TimedOut, run
from tests.unit.engine_provisioner.waiting import until

FAMILY = "setsid sh -c 'echo $$ >grandchild; while :; do sleep 60; done' & echo $$ >child; wait"
"""A shell with a child in a session of its own, which no process group reaches."""


def job(directory: Path, script: str, *, silence_s: float = 60, limit_s: float = 60) -> Job:
    return Job(("sh", "-c", script), directory, dict(os.environ), silence_s, limit_s)


@pytest.fixture
def log(tmp_path: Path) -> BuildLog:
    log = BuildLog(tmp_path / "build.log")
    log.begin()
    return log


async def ignored(_line: str) -> None:
    return None


def pid_in(path: Path) -> int | None:
    return int(text) if path.exists() and (text := path.read_text().strip()) else None


def is_gone(path: Path) -> bool:
    pid = pid_in(path)
    return pid is not None and not Path(f"/proc/{pid}").exists()


async def test_output_is_logged_and_passed_on_by_line(tmp_path: Path, log: BuildLog) -> None:
    lines: list[str] = []

    async def collect(line: str) -> None:
        lines.append(line)

    status = await run(job(tmp_path, r"printf 'one\r10%%\r\ntwo \033[1mbold\033[0m\n'; exit 3"), log, collect)
    assert (status, lines) == (3, ["one", "10%", "two bold"])
    assert log.path.read_text() == "one\n10%\ntwo bold\n"


async def test_missing_program_is_a_status(tmp_path: Path, log: BuildLog) -> None:
    assert await run(Job(("/no/such",), tmp_path, {}, 60, 60), log, ignored) == 126
    assert log.tail() == ["cannot execute /no/such: No such file or directory"]


@pytest.mark.parametrize("limits", [{"silence_s": 0.3}, {"limit_s": 0.3}])
async def test_program_over_its_limit_is_killed(tmp_path: Path, log: BuildLog, limits: dict[str, float]) -> None:
    with pytest.raises(TimedOut, match=r"for 0\.3 s|within 0\.3 s"):
        await run(job(tmp_path, "echo $$ >child; sleep 60", **limits), log, ignored)
    assert pid_in(tmp_path / "child") is None or is_gone(tmp_path / "child")


async def test_cancelled_job_leaves_no_process(tmp_path: Path, log: BuildLog) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, job(tmp_path, FAMILY), log, ignored)
        await until(lambda: bool(pid_in(tmp_path / "grandchild")))
        nursery.cancel_scope.cancel()
    assert is_gone(tmp_path / "child")
    assert is_gone(tmp_path / "grandchild")


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
async def test_tree_ends_without_help_of_its_guard(
    tmp_path: Path, log: BuildLog, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr("engine_provisioner.build.processes.END_S", 0.2)
    family = "sh -c 'echo $$ >grandchild; while :; do sleep 60; done' & echo $PPID >guard; echo $$ >child; wait"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, job(tmp_path, family), log, ignored)
        await until(lambda: bool(pid_in(tmp_path / "grandchild") and pid_in(tmp_path / "child")))
        os.kill(pid_in(tmp_path / "guard") or 0, number)
        nursery.cancel_scope.cancel()
    await until(lambda: is_gone(tmp_path / "child") and is_gone(tmp_path / "grandchild"))


async def test_tree_ends_when_its_daemon_is_killed(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    guard = subprocess.Popen(  # noqa: ASYNC220 -- a daemon that ends cannot be a task of this one
        [sys.executable, "-IS", str(GUARD), "sh", "-c", FAMILY], cwd=tmp_path, stdin=reading, start_new_session=True
    )
    os.close(reading)
    await until(lambda: bool(pid_in(tmp_path / "grandchild")))
    os.close(writing)  # as the kernel does for a process that is killed
    assert guard.wait(timeout=30) == 128 + signal.SIGKILL
    assert is_gone(tmp_path / "child")
    assert is_gone(tmp_path / "grandchild")


def test_log_stays_bounded_and_keeps_the_end(log: BuildLog) -> None:
    for number in range(5):
        log.append([f"part {number}", "x" * (HALF_BYTES // 2)])
    log.append(["the end"])
    files = list(log.path.parent.glob("build.log*"))
    assert sum(file.stat().st_size for file in files) <= 2 * HALF_BYTES
    assert log.path.read_text().endswith("the end\n")
    assert log.tail()[-1] == "the end"
    assert all(len(line) <= 180 for line in log.tail())
