"""Reports are validated as another user's files, and left in place."""

import os
import time
from pathlib import Path

import pytest

from llama_orch.contracts.pools import PoolState
from pool_managerd.handoffs.reports import ReportReader, read_reports
from tests.unit.llama_orch.spool.samples import OWNERS
from tests.unit.pool_managerd.values import handoff, report


def later_s() -> float:
    """A time when files just written are no longer recent."""
    return time.time() + 60


def write(directory: Path, name: str, content: str) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(content)
    return path


def good(pool_id: str = "default") -> str:
    return report(PoolState.FAILED, pool_id, last_error="no such model").model_dump_json(by_alias=True)


def test_report_is_read_by_pool(tmp_path: Path) -> None:
    write(tmp_path, "default.json", good())
    reading = read_reports(tmp_path, OWNERS, later_s())
    assert reading.by_pool["default"].last_error == "no such model"
    assert reading.bad == ()


def test_missing_directory_has_no_reports(tmp_path: Path) -> None:
    assert read_reports(tmp_path / "status", OWNERS, later_s()).by_pool == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (good("other"), "pool_id: other does not match the file's name"),
        ("{}", "pool_id: is required"),
        ("half", "Invalid JSON"),
        (" " * 70_000, "is 70000 bytes long"),
    ],
)
def test_invalid_file_is_reported_and_others_are_read(tmp_path: Path, content: str, reason: str) -> None:
    write(tmp_path, "default.json", content)
    write(tmp_path, "fine.json", good("fine"))
    reading = read_reports(tmp_path, OWNERS, later_s())
    assert list(reading.by_pool) == ["fine"]
    assert reason in reading.bad[0].reason


def test_symlink_is_not_followed(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", "default.json", good())
    (tmp_path / "default.json").symlink_to(elsewhere)
    reading = read_reports(tmp_path, OWNERS, later_s())
    assert (reading.by_pool, reading.bad[0].reason) == ({}, "is a symbolic link; only regular files are read")


def test_recent_incomplete_report_is_not_bad_yet(tmp_path: Path) -> None:
    path = write(tmp_path, "default.json", good()[:10])
    reading = read_reports(tmp_path, OWNERS, path.stat().st_mtime + 1)
    assert (reading.by_pool, reading.bad) == ({}, ())


def test_bad_file_from_the_future_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path, "default.json", good()[:10])
    reading = read_reports(tmp_path, OWNERS, path.stat().st_mtime - 3600)
    assert [bad.name for bad in reading.bad] == ["default.json"]


async def test_bad_file_is_logged_once_and_left_in_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "status", "default.json", "{}")
    reader = ReportReader(tmp_path)
    assert (await reader.read()).by_pool == {}
    assert (await reader.read()).by_pool == {}
    assert os.listdir(path.parent) == [path.name]
    assert caplog.text.count("provisioning report default.json is unusable") == 1


async def test_unreadable_directory_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "status").write_text("")
    reader = ReportReader(tmp_path)
    await reader.read()
    await reader.read()
    assert caplog.text.count("is unusable") == 1


def test_announcement_in_a_report_has_the_files_identity(tmp_path: Path) -> None:
    provisioning_report = report(PoolState.READY, handoff=handoff().model_dump(by_alias=True))
    write(tmp_path, "default.json", provisioning_report.model_dump_json(by_alias=True))
    (found,) = read_reports(tmp_path, OWNERS, later_s()).announced
    assert (found.handoff, found.identity.name) == (handoff(), "default.json")


def test_report_that_announces_another_pool_is_bad(tmp_path: Path) -> None:
    provisioning_report = report(PoolState.READY, handoff=handoff("other").model_dump(by_alias=True))
    write(tmp_path, "default.json", provisioning_report.model_dump_json(by_alias=True))
    reading = read_reports(tmp_path, OWNERS, later_s())
    assert (reading.by_pool, reading.announced) == ({}, ())
    assert "handoff.pool_id: other differs" in reading.bad[0].reason
