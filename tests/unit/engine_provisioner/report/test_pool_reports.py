"""Status files are restored when lost, and a failed write is reported."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from engine_provisioner.report.pool_reports import PoolReports
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from tests.unit.engine_provisioner.waiting import until

HANDOFF = Handoff(pool_id="default", engine_version="b1", url="http://127.0.0.1:18080")


@asynccontextmanager
async def maintained(directory: Path) -> AsyncIterator[PoolReports]:
    reports = PoolReports(directory, CollectorRegistry())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.restore_lost_files)
        yield reports
        nursery.cancel_scope.cancel()


async def ready(reports: PoolReports) -> None:
    await reports.post("default", "llamacpp", PoolState.READY, "running", handoff=HANDOFF)


def report(path: Path) -> ProvisioningReport | None:
    return ProvisioningReport.model_validate_json(path.read_bytes()) if path.exists() else None


async def test_report_of_ready_pool_contains_its_handoff(tmp_path: Path) -> None:
    async with maintained(tmp_path) as reports:
        await ready(reports)
        assert (written := report(tmp_path / "default.json"))
        assert written.handoff == HANDOFF
        await reports.post("default", "llamacpp", PoolState.FAILED, "later", "it crashed")
        assert (written := report(tmp_path / "default.json"))
        assert written.handoff is None


async def test_removed_report_is_restored(tmp_path: Path) -> None:
    status = tmp_path / "engines/status"
    async with maintained(status) as reports:
        await ready(reports)
        shutil.rmtree(tmp_path / "engines")
        await until(lambda: report(status / "default.json") is not None)


async def test_overwritten_report_is_restored(tmp_path: Path) -> None:
    async with maintained(tmp_path) as reports:
        await ready(reports)
        original = (tmp_path / "default.json").read_bytes()
        (tmp_path / "default.json").write_text("{")
        await until(lambda: (tmp_path / "default.json").read_bytes() == original)


async def test_summary_has_the_error_of_a_failed_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "status").write_text("in the way")
    async with maintained(tmp_path / "status") as reports:
        await ready(reports)
        await reports.post("default", "llamacpp", PoolState.FAILED, "later", "it crashed")
        assert f"cannot write {tmp_path}/status/default.json" in reports.summary()
        assert caplog.text.count("cannot write") == 1
        (tmp_path / "status").unlink()
        await until(lambda: "cannot write" not in reports.summary())
