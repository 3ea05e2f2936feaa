"""The latest report of each pool, published as status files, readiness, metrics and STATUS=.

Owns `status/<pool_id>.json` in the handoff directory. A file is written when the pool's report changes, and again when
somebody removes or replaces it: after losing its own state, pool-managerd learns of running engines from these files.
"""

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import trio
from prometheus_client import CollectorRegistry

from engine_provisioner.metrics import Metrics
from llama_orch.contracts.engines import Workload
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import POOLS_EXAMPLE, POOLS_FILE, PoolState, ProvisioningReport, Residency
from llama_orch.contracts.reloads import PoolReload
from llama_orch.files import durable

log = logging.getLogger(__name__)

SUMMARY_ORDER = (
    PoolState.READY,
    PoolState.STARTING,
    PoolState.PROVISIONING,
    PoolState.UNINITIALIZED,
    PoolState.DRAINING,
    PoolState.UNLOADED,
    PoolState.FAILED,
    PoolState.OFFLINE,
)
AS_WANTED = (PoolState.READY, PoolState.UNLOADED, PoolState.DRAINING, PoolState.OFFLINE)
"""The states of a pool that lacks nothing; `draining` is the way to `unloaded`."""
STATUS_LIMIT = 500
DOWNLOADING = "downloading "
"""Begins the detail of a pool that is being downloaded."""
CHECK_EVERY_S = 1.0

Signature = tuple[int, int, int] | None
"""Inode, mtime and size of a file; None if it does not exist."""


class PoolReports:
    """The latest report of each pool. Not thread-safe. `changed` is set, and replaced, when a report changes."""

    def __init__(self, directory: Path, registry: CollectorRegistry) -> None:
        self._directory = directory
        self._reports: dict[str, ProvisioningReport] = {}
        self._written: dict[str, Signature] = {}
        self._writes: dict[str, trio.Event] = {}
        self._removed: dict[str, ProvisioningReport] = {}
        self._reloads: dict[str, PoolReload] = {}
        self.write_error: str | None = None
        """Why the last write of a report failed."""
        self._refused: str | None = None
        self.changed = trio.Event()
        self.metrics = Metrics(registry)

    async def restore_lost_files(self) -> NoReturn:
        """Rewrite each status file that was removed or changed, every CHECK_EVERY_S seconds."""
        while True:
            await trio.sleep(CHECK_EVERY_S)
            for report in list(self._reports.values()):
                signature = await trio.to_thread.run_sync(signature_of, self._path(report.pool_id))
                if signature is None or signature != self._written.get(report.pool_id):
                    await self._write(report.pool_id)

    def _path(self, pool_id: str) -> Path:
        return self._directory / f"{pool_id}.json"

    async def post(
        self,
        pool_id: str,
        engine: str,
        state: PoolState,
        detail: str | None = None,
        last_error: str | None = None,
        handoff: Handoff | None = None,
        workloads: list[Workload] | None = None,
        residency: Residency | None = None,
    ) -> None:
        """Set the pool's report. If the file cannot be written, that is logged and the pool continues."""
        report = ProvisioningReport(
            pool_id=pool_id,
            state=state,
            engine=engine,
            detail=detail and detail[:1024],
            last_error=last_error and last_error[:4096],
            handoff=handoff,
            workloads=workloads,
            residency=residency,
            reload=self._reloads.get(pool_id),
            updated_at=datetime.now(UTC),
        )
        await self._publish(report)

    async def _publish(self, report: ProvisioningReport) -> None:
        pool_id = report.pool_id
        before = self._reports.get(pool_id)
        self._reports[pool_id] = report
        self._removed.pop(pool_id, None)
        if before and before.model_copy(update={"updated_at": report.updated_at}) == report:
            return
        self.metrics.set_state(pool_id, report.state, (each.state for each in self._reports.values()))
        self._wake()
        await self._write(pool_id)

    async def set_reload(self, pool_id: str, reload: PoolReload) -> None:
        """Set the latest reload of a pool, which its present report and all later ones show."""
        self._reloads[pool_id] = reload
        if report := self._reports.get(pool_id):
            await self._publish(report.model_copy(update={"reload": reload, "updated_at": datetime.now(UTC)}))

    async def until(self, pool_id: str, states: Collection[PoolState]) -> ProvisioningReport:
        """Return the report of a pool as soon as it is in one of `states`."""
        while (report := self._reports.get(pool_id)) is None or report.state not in states:
            await self.changed.wait()
        return report

    def report(self, pool_id: str) -> ProvisioningReport | None:
        """Return the latest report of a pool."""
        return self._reports.get(pool_id)

    async def remove(self, pool_id: str) -> ProvisioningReport:
        """Report for the last time, as removed; return that report for `forget`."""
        self._reloads.pop(pool_id, None)
        update = {
            "state": PoolState.DRAINING,
            "handoff": None,
            "reload": None,
            "removed": True,
            "updated_at": datetime.now(UTC),
        }
        last = self._removed[pool_id] = self._reports.pop(pool_id).model_copy(update=update)
        self.metrics.remove_pool(pool_id, (each.state for each in self._reports.values()))
        self._wake()
        await self._write(pool_id)
        return last

    async def forget(self, last: ProvisioningReport) -> None:
        """Delete the file of a removed pool's last report, unless there is a newer one."""
        pool_id = last.pool_id
        if self._removed.get(pool_id) is last:
            del self._removed[pool_id]
            self._written.pop(pool_id, None)
            with suppress(OSError):
                await trio.Path(self._path(pool_id)).unlink(missing_ok=True)

    def set_refused(self, problem: str | None) -> None:
        """Set why the pools files were refused when they were last read, None if they were accepted."""
        if problem != self._refused:
            self._refused = problem
            self._wake()

    def _wake(self) -> None:
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    async def _write(self, pool_id: str) -> None:
        """Write the pool's current report. Writes of one pool are serialized, so that the newest one is the last."""
        while pool_id in self._writes:
            await self._writes[pool_id].wait()
        self._writes[pool_id] = trio.Event()
        try:
            if report := self._reports.get(pool_id) or self._removed.get(pool_id):
                await self._write_file(report)
        finally:
            self._writes.pop(pool_id).set()

    async def _write_file(self, report: ProvisioningReport) -> None:
        path = self._path(report.pool_id)
        content = report.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode() + b"\n"
        try:
            self._written[report.pool_id] = await trio.to_thread.run_sync(_replace, path, content)
            problem = None
        except OSError as error:
            self._written.pop(report.pool_id, None)
            problem = f"cannot write {path}: {error.strerror or error}"
            if problem != self.write_error:
                log.error("%s; pool-managerd does not see state changes", problem)
        if problem != self.write_error:
            self.write_error = problem
            self._wake()

    def unready_pools(self) -> list[str]:
        """Describe each pool that is neither ready nor unloaded as wanted."""
        return [
            f"pool {report.pool_id} is {report.state.value}"
            for report in self._reports.values()
            if report.state not in AS_WANTED
        ]

    def summary(self) -> str:
        """Return one line for STATUS=."""
        refused = f"pools files refused, the former pools stay: {self._refused}" if self._refused else None
        return "; ".join(filter(None, (summary(self._reports.values()), refused, self.write_error)))


def _replace(path: Path, content: bytes) -> Signature:
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, content)
    return signature_of(path)


def signature_of(path: Path) -> Signature:
    """Return values that change with the file at `path`. Blocks."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _note(report: ProvisioningReport) -> str | None:
    """Return what the summary says of one pool: why it failed, or how far its download is."""
    if report.state is PoolState.FAILED:
        return report.last_error
    downloading = report.state is PoolState.PROVISIONING and (report.detail or "").startswith(DOWNLOADING)
    return report.detail if downloading else None


def summary(reports: Iterable[ProvisioningReport]) -> str:
    """Return a line like `1 pool ready, 1 starting, 1 failed: cuda: GPU 1 is configured but absent`."""
    reports = list(reports)
    if not reports:
        return f"no pools; configure them in {POOLS_FILE}, as in {POOLS_EXAMPLE}"
    counts = Counter(report.state for report in reports)
    parts = [f"{counts[state]} {state.value}" for state in SUMMARY_ORDER if counts[state]]
    first, _, rest = parts[0].partition(" ")
    parts[0] = f"{first} pool{'s' * (first != '1')} {rest}"
    notes = [f"{report.pool_id}: {note}" for report in reports if (note := _note(report))]
    text = ", ".join(parts) + (f": {'; '.join(notes)}" if notes else "")
    return text if len(text) <= STATUS_LIMIT else text[: STATUS_LIMIT - 1] + "…"
