"""engine-provisioner's reports on its pools: `status/*.json` in the handoff directory.

Another user writes them, so they are read with the same care as handoffs. They stay where they are.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from llama_orch.contracts.pools import ProvisioningReport
from llama_orch.spool import BadFile, HandoffFile, Identity, SpoolUnreadable, trusted_owners
from llama_orch.spool.files import RefusedFile, SpoolFile, read_all
from llama_orch.spool.handoffs import NotJson, decode, young
from llama_orch.spool.identity import printable
from llama_orch.telemetry.events.pools import REPORT_UNUSABLE
from llama_orch.telemetry.records import emit

DIRECTORY = "status"


@dataclass(frozen=True)
class Reading:
    """The reports by pool id, the announcements in them, and the files that are no reports."""

    reports: dict[str, ProvisioningReport]
    bad: tuple[BadFile, ...] = ()
    announced: tuple[HandoffFile, ...] = ()


def read_reports(directory: Path, owners: frozenset[int], now_s: float) -> Reading:
    """All reports in `directory`; none where it is missing. Blocks. Raises SpoolUnreadable.

    A file is a report on the pool it is named after. What is not JSON yet and young is left for the next look.
    """
    reports: dict[str, ProvisioningReport] = {}
    bad: list[BadFile] = []
    announced: list[HandoffFile] = []
    for item in read_all(directory, owners):
        try:
            report = understood(item)
            reports[report.pool_id] = report
            announced += [HandoffFile(report.handoff, item.identity)] if report.handoff else []
        except NotJson as error:
            if not young(item.identity, now_s):
                bad.append(BadFile(item.identity.name, str(error), item.identity))
        except ValueError as error:
            bad.append(BadFile(item.identity.name, str(error), item.identity))
    return Reading(reports, tuple(bad), tuple(announced))


def understood(item: SpoolFile | RefusedFile) -> ProvisioningReport:
    """The report in `item`. Raises ValueError that says what is wrong."""
    if isinstance(item, RefusedFile):
        raise ValueError(item.reason)
    report = decode(item.content, ProvisioningReport)
    if item.identity.name != f"{report.pool_id}.json":
        raise ValueError(f"pool_id: is {report.pool_id}, and the file is named after another")
    if report.handoff and report.handoff.pool_id != report.pool_id:
        raise ValueError(f"handoff.pool_id: is {report.handoff.pool_id}, and the report is on {report.pool_id}")
    return report


class ReportReader:
    """Reads the reports again and again and says once what is wrong with each file."""

    def __init__(self, handoff_directory: Path) -> None:
        self.directory = handoff_directory / DIRECTORY
        self._known: frozenset[Identity] = frozenset()
        self._trouble: str | None = None

    async def read(self) -> Reading:
        """The reports as they are now."""
        read = partial(read_reports, self.directory, trusted_owners(), time.time())
        try:
            reading = await trio.to_thread.run_sync(read)
            trouble = None
        except SpoolUnreadable as error:
            reading, trouble = Reading({}), str(error)
        if trouble and trouble != self._trouble:
            emit(REPORT_UNUSABLE, file=self.directory, reason=trouble)
        for bad in reading.bad:
            if bad.identity not in self._known:
                emit(REPORT_UNUSABLE, file=printable(bad.name), reason=bad.reason)
        self._trouble, self._known = trouble, frozenset(bad.identity for bad in reading.bad)
        return reading
