"""The loop that takes handoff files: woken by inotify, by POST /v2/handoff/scan, and by the polling interval.

Owns the files that were taken and whose pools are not yet saved: a file is deleted only when its pool would survive a
restart without it. engine-provisioner repeats its announcements in its reports, so that an engine is found again if
both the file and the saved state are lost.
"""

import logging
import time
from collections.abc import Iterable, Sequence

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState
from llama_orch.service.watchdog import Pulse
from llama_orch.spool import SpoolReader
from llama_orch.spool.handoffs import HandoffFile
from llama_orch.telemetry.levels import TRACE
from pool_managerd.engines.health import HealthLoop
from pool_managerd.handoffs.reload_times import ReloadTimes
from pool_managerd.handoffs.reports import ReportReader
from pool_managerd.handoffs.state_file import StateFile
from pool_managerd.metrics import Metrics
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.pool_status import Reports
from pool_managerd.pools.replica import ProbeResult, Replica

log = logging.getLogger(__name__)


class HandoffLoop:
    """Takes handoff files, adds their engines to the pools and saves these. `interval_s` is the polling interval."""

    def __init__(
        self,
        *,
        intake: SpoolReader,
        reports: ReportReader,
        node_pools: NodePools,
        health: HealthLoop,
        store: StateFile,
        metrics: Metrics,
        interval_s: float,
        deletes: bool,
    ) -> None:
        self.bell = Bell()
        self._intake = intake
        self._reports = reports
        self._node_pools = node_pools
        self._health = health
        self._store = store
        self._metrics = metrics
        self._interval_s = interval_s
        self._deletes = deletes
        self._unsaved = False
        self._ready: frozenset[str] = frozenset()
        self._taken: list[HandoffFile] = []
        self._scans: list[trio.Event] = []
        self._reload_times = ReloadTimes()

    async def run(self, pulse: Pulse, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take files forever; started after the first scan. Beats `pulse` each time."""
        await self._scan(self._node_pools.replicas)
        task_status.started()
        while True:
            pulse.beat()
            await self.bell.wait(min(self._interval_s, pulse.interval_s))
            scans, self._scans = self._scans, []
            await self._scan()
            for done in scans:
                done.set()

    def troubles(self) -> list[str]:
        """Return why handoff files cannot be taken."""
        return [self._intake.trouble] if self._intake.trouble else []

    async def scan(self) -> None:
        """Scan the directory now; return when the files in it have been taken."""
        done = trio.Event()
        self._scans.append(done)
        self.bell.ring()
        await done.wait()

    async def _scan(self, restored: Sequence[Replica] = ()) -> None:
        began_s = time.perf_counter()
        news = await self._intake.look()
        log.log(TRACE, "looked for handoffs: %d new, %d bad", len(news.found), len(news.bad))
        await self._take([found for found in news.found if not is_outdated(found, restored)], began_s)
        for _bad in news.bad:
            self._metrics.handoff_rejected()
        reports = await self._reports.read()
        lost = missing_engines(reports.announced, self._node_pools.replicas)
        await self._take(lost, began_s)
        dropped = self._node_pools.set_reports(reports.by_pool)
        self._check_lost(reports.by_pool)
        for ended in list(self._reload_times.update(reports.by_pool.values(), trio.current_time())):
            self._metrics.reloaded(ended.pool_id, 1000 * ended.took_s, success=ended.success)
        self._taken += news.found
        known_changed = dropped or bool(news.found or lost)
        self._unsaved |= self._node_pools.forget_gone() or known_changed or await self._store.lost()
        if self._unsaved:
            await self._save()
        self._metrics.keep_only({pool.pool_id for pool in self._node_pools.pools})

    def _check_lost(self, reports: Reports) -> None:
        """Have the engines of pools that are no longer reported as ready probed at once."""
        ready = frozenset(pool_id for pool_id, report in reports.items() if report.state is PoolState.READY)
        if lost := self._ready - ready:
            self._health.probe_now(lost)
        self._ready = ready

    async def _take(self, news: Sequence[HandoffFile], began_s: float) -> None:
        """Add engines, each with a first probe: a pool must not be reported unready to a queen that read the same file
        and found the engine ready."""
        results: list[ProbeResult | None] = [None] * len(news)

        async def probe(number: int, handoff: Handoff) -> None:
            results[number] = await self._health.first_probe(handoff)

        async with trio.open_nursery() as probes:
            for number, found in enumerate(news):
                probes.start_soon(probe, number, found.handoff)
        for found, result in zip(news, results, strict=True):
            self._node_pools.take(found, result)
            self._health.bell.ring()
            took_ms = (time.perf_counter() - began_s) * 1000
            self._metrics.handoff_taken(found.handoff.pool_id, took_ms)
            log.debug("handoff %s of pool %s taken in %.1f ms", found.identity.name, found.handoff.pool_id, took_ms)

    async def _save(self) -> None:
        known = [HandoffFile(replica.handoff, replica.identity) for replica in self._node_pools.replicas]
        if not await self._store.save(known):
            return
        taken, self._taken, self._unsaved = self._taken, [], False
        if self._deletes:
            for found in taken:
                await self._intake.delete(found)


def missing_engines(announced: Iterable[HandoffFile], known: Iterable[Replica]) -> list[HandoffFile]:
    """Return the engines announced in reports that have no replica: their handoff file or the saved state was lost."""
    known = tuple(known)
    return [found for found in announced if not any(_represents(replica, found) for replica in known)]


def _represents(replica: Replica, found: HandoffFile) -> bool:
    """Whether `replica` is the engine of `found`, or has replaced it."""
    ours, theirs = replica.handoff, found.handoff
    if (replica.key, ours.url) != ((theirs.pool_id, theirs.replica_id), theirs.url):
        return is_outdated(found, [replica])
    return not (ours.created_at and theirs.created_at and ours.created_at < theirs.created_at)


def is_outdated(found: HandoffFile, known: Iterable[Replica]) -> bool:
    """Whether one of the `known` engines was announced later and has replaced `found`, whose file was not deleted."""
    return any(
        found.identity.mtime_ns < replica.identity.mtime_ns
        and (
            found.handoff.url == replica.handoff.url or (found.handoff.pool_id, found.handoff.replica_id) == replica.key
        )
        for replica in known
    )
