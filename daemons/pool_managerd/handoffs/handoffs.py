"""The loop that takes handoffs: woken by inotify, by POST /v2/handoff/scan, and by the polling interval.

Owns what was taken and is not yet saved: a file is deleted only when its pool would survive a restart without it.
engine-provisioner repeats its announcements in its reports, so that an engine is known again when all of that is lost.
"""

import logging
import time
from collections.abc import Iterable, Sequence

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.handoff import Handoff
from llama_orch.service.watchdog import Pulse
from llama_orch.spool import HandoffFile, SpoolReader
from llama_orch.telemetry.levels import TRACE
from pool_managerd.engines.health import Health
from pool_managerd.handoffs.persistence import Store
from pool_managerd.handoffs.reports import ReportReader
from pool_managerd.metrics import Metrics
from pool_managerd.pools.registry import Registry
from pool_managerd.pools.replica import Replica, Sighting

log = logging.getLogger(__name__)


class Handoffs:
    """Takes handoffs into the registry and has them looked at. `interval_s` is the polling interval."""

    def __init__(
        self,
        *,
        intake: SpoolReader,
        reports: ReportReader,
        registry: Registry,
        health: Health,
        store: Store,
        metrics: Metrics,
        interval_s: float,
        deletes: bool,
    ) -> None:
        self.bell = Bell()
        self._intake = intake
        self._reports = reports
        self._registry = registry
        self._health = health
        self._store = store
        self._metrics = metrics
        self._interval_s = interval_s
        self._deletes = deletes
        self._unsaved = False
        self._taken: list[HandoffFile] = []
        self._waiting: list[trio.Event] = []

    async def run(self, pulse: Pulse, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take for ever; started once the first look is done. Beats `pulse` each turn."""
        await self._turn(self._registry.replicas)
        task_status.started()
        while True:
            pulse.beat()
            await self.bell.wait(min(self._interval_s, pulse.interval_s))
            waiting, self._waiting = self._waiting, []
            await self._turn()
            for done in waiting:
                done.set()

    def troubles(self) -> list[str]:
        """What keeps handoffs from being taken."""
        return [self._intake.trouble] if self._intake.trouble else []

    async def scan(self) -> None:
        """Have the directory looked at now; return when what is there has been taken."""
        done = trio.Event()
        self._waiting.append(done)
        self.bell.ring()
        await done.wait()

    async def _turn(self, of_last_run: Sequence[Replica] = ()) -> None:
        began_s = time.perf_counter()
        news = await self._intake.look()
        log.log(TRACE, "looked for handoffs: %d new, %d bad", len(news.found), len(news.bad))
        await self._take([found for found in news.found if not outdated(found, of_last_run)], began_s)
        for _bad in news.bad:
            self._metrics.handoff_rejected()
        reading = await self._reports.read()
        lost = unknown(reading.announced, self._registry.replicas)
        await self._take(lost, began_s)
        self._registry.set_reports(reading.reports)
        self._taken += news.found
        self._unsaved |= self._registry.forget_gone() or bool(news.found or lost) or await self._store.lost()
        if self._unsaved:
            await self._save()
        self._metrics.keep_only({pool.pool_id for pool in self._registry.pools})

    async def _take(self, news: Sequence[HandoffFile], began_s: float) -> None:
        """Each engine is looked at first: a queen that has read the file too and found the engine ready would otherwise
        be told that it is not, and a moment later that it is."""
        sightings: list[Sighting | None] = [None] * len(news)

        async def look(number: int, handoff: Handoff) -> None:
            sightings[number] = await self._health.first_look(handoff)

        async with trio.open_nursery() as looks:
            for number, found in enumerate(news):
                looks.start_soon(look, number, found.handoff)
        for found, sighting in zip(news, sightings, strict=True):
            self._registry.take(found, sighting)
            self._health.bell.ring()
            took_ms = (time.perf_counter() - began_s) * 1000
            self._metrics.handoff_taken(found.handoff.pool_id, took_ms)
            log.debug("handoff %s of pool %s taken in %.1f ms", found.identity.name, found.handoff.pool_id, took_ms)

    async def _save(self) -> None:
        known = [HandoffFile(replica.handoff, replica.identity) for replica in self._registry.replicas]
        if not await self._store.save(known):
            return
        taken, self._taken, self._unsaved = self._taken, [], False
        if self._deletes:
            for found in taken:
                await self._intake.delete(found)


def unknown(announced: Iterable[HandoffFile], known: Iterable[Replica]) -> list[HandoffFile]:
    """Those of the engines `announced` in reports that no replica stands for: this daemon has lost its state, or the
    handoff file was lost before it was taken."""
    known = tuple(known)
    return [found for found in announced if not any(_stands_for(each, found) for each in known)]


def _stands_for(replica: Replica, found: HandoffFile) -> bool:
    """Whether `replica` is the engine of `found`, or was announced after it in its place."""
    ours, theirs = replica.handoff, found.handoff
    if (replica.key, ours.url) != ((theirs.pool_id, theirs.replica_id), theirs.url):
        return outdated(found, [replica])
    return not (ours.created_at and theirs.created_at and ours.created_at < theirs.created_at)


def outdated(found: HandoffFile, known: Iterable[Replica]) -> bool:
    """Whether one of the `known` engines was announced later and has taken the place of `found`, whose file is still
    there: it could not be deleted, or was not to be."""
    return any(
        found.identity.mtime_ns < replica.identity.mtime_ns
        and (
            found.handoff.url == replica.handoff.url or (found.handoff.pool_id, found.handoff.replica_id) == replica.key
        )
        for replica in known
    )
