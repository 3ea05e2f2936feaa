"""engine-provisioner's reports on its pools: `status/*.json` in the handoff directory.

Another user writes them, so that they are validated like handoff files. They are not deleted.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from llama_orch.contracts.pools import ProvisioningReport
from llama_orch.spool import BadFile, Identity, SpoolUnreadable, trusted_owners
from llama_orch.spool.files import RefusedFile, SpoolFile, read_all
from llama_orch.spool.handoffs import HandoffFile, NotJson, decode, young
from llama_orch.spool.identity import printable
from llama_orch.telemetry.events.pools import REPORT_UNUSABLE
from llama_orch.telemetry.records import emit

DIRECTORY = "status"


@dataclass(frozen=True)
class ReportScan:
    """The reports by pool id, the engines announced in them, and the files that are not valid reports."""

    by_pool: dict[str, ProvisioningReport]
    bad: tuple[BadFile, ...] = ()
    announced: tuple[HandoffFile, ...] = ()


def read_reports(directory: Path, owners: frozenset[int], now_s: float) -> ReportScan:
    """Read all reports in `directory`, which may be missing. Blocks. Raises SpoolUnreadable.

    A report's file is named after its pool. A recent file that is not JSON yet may still be written, and is left out.
    """
    by_pool: dict[str, ProvisioningReport] = {}
    bad: list[BadFile] = []
    announced: list[HandoffFile] = []
    for item in read_all(directory, owners):
        try:
            report = parse_report(item)
            by_pool[report.pool_id] = report
            announced += [HandoffFile(report.handoff, item.identity)] if report.handoff else []
        except NotJson as error:
            if not young(item.identity, now_s):
                bad.append(BadFile(item.identity.name, str(error), item.identity))
        except ValueError as error:
            bad.append(BadFile(item.identity.name, str(error), item.identity))
    return ReportScan(by_pool, tuple(bad), tuple(announced))


def parse_report(item: SpoolFile | RefusedFile) -> ProvisioningReport:
    """Return the report in `item`. Raises ValueError that names the problem."""
    if isinstance(item, RefusedFile):
        raise ValueError(item.reason)
    report = decode(item.content, ProvisioningReport)
    if item.identity.name != f"{report.pool_id}.json":
        raise ValueError(f"pool_id: {report.pool_id} does not match the file's name")
    if report.handoff and report.handoff.pool_id != report.pool_id:
        raise ValueError(f"handoff.pool_id: {report.handoff.pool_id} differs from pool_id {report.pool_id}")
    return report


class ReportReader:
    """Reads the reports; logs the problem of each bad file once."""

    def __init__(self, handoff_directory: Path) -> None:
        self.directory = handoff_directory / DIRECTORY
        self._logged: frozenset[Identity] = frozenset()
        self._trouble: str | None = None

    async def read(self) -> ReportScan:
        """Return the current reports."""
        read = partial(read_reports, self.directory, trusted_owners(), time.time())
        try:
            reports = await trio.to_thread.run_sync(read)
            trouble = None
        except SpoolUnreadable as error:
            reports, trouble = ReportScan({}), str(error)
        if trouble and trouble != self._trouble:
            emit(REPORT_UNUSABLE, file=self.directory, reason=trouble)
        for bad in reports.bad:
            if bad.identity not in self._logged:
                emit(REPORT_UNUSABLE, file=printable(bad.name), reason=bad.reason)
        self._trouble, self._logged = trouble, frozenset(bad.identity for bad in reports.bad)
        return reports
