"""The supervisors of all configured pools. Pools come, change and go while the daemon runs."""

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import trio

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.step_deadline import StepDeadline
from engine_provisioner.supervise.change import Change
from engine_provisioner.supervise.changes import Changes, changes, same_engine
from engine_provisioner.supervise.member import Member
from engine_provisioner.supervise.preparation import Prepared, SharedResources, describe_load
from engine_provisioner.supervise.wanted import Wanted
from llama_orch.contracts.pools import PoolState, Residency
from llama_orch.telemetry.events.provisioning import ENGINE_RETIRED
from llama_orch.telemetry.records import emit

log = logging.getLogger("engine_provisioner.pool")

LAST_REPORT_S = 10.0
"""How long the last report of a removed pool stays, so that pool-managerd reads it."""
RUNNING = (PoolState.READY, PoolState.STARTING, PoolState.DRAINING)


class ReloadRunning(Exception):
    """The pool is being reloaded already."""


class PoolSet:
    """Supervises the configured pools while `run` runs. The one owner of the supervisors and of changes of pools."""

    def __init__(self, shared: SharedResources, reports: PoolReports, handoff_dir: Path) -> None:
        self._shared = shared
        self._reports = reports
        self._handoff_dir = handoff_dir
        self._members: dict[str, Member] = {}
        self._changes: dict[str, Change] = {}
        """The latest change of each pool, ended or not."""
        self._leaving: dict[str, trio.Event] = {}
        self._configured = trio.Event()
        self._nursery: trio.Nursery

    @property
    def pools(self) -> list[Pool]:
        """The pools as they are run now, in the order of the files."""
        return [member.pool for member in self._members.values()]

    @property
    def used_pools(self) -> list[Pool]:
        """The pools as they are run now, and as they are about to be run."""
        return [*self.pools, *(change.target for change in self._changes.values() if not change.ended.is_set())]

    @property
    def deadlines(self) -> Iterator[StepDeadline]:
        """The deadlines of the supervisors and of the changes."""
        yield from (member.deadline for member in self._members.values())
        yield from (change.deadline for change in self._changes.values() if not change.ended.is_set())

    async def configured(self) -> dict[str, Pool]:
        """Return the configured pools by id, as soon as pools have been applied."""
        await self._configured.wait()
        return {pool_id: member.pool for pool_id, member in self._members.items()}

    def wanted(self, pool_id: str) -> Wanted:
        """Return the wanted state of a configured pool. It has no effect on an external one."""
        return self._members[pool_id].wanted

    def member(self, pool_id: str) -> Member:
        """Return a configured pool with its supervisor."""
        return self._members[pool_id]

    def others(self, pool_id: str) -> list[Member]:
        """Return the other configured pools with their supervisors."""
        return [member for other, member in self._members.items() if other != pool_id]

    def is_changing(self, pool_id: str) -> bool:
        """Whether the pool is being changed."""
        change = self._changes.get(pool_id)
        return change is not None and not change.ended.is_set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the supervisors until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def apply(self, pools: Sequence[Pool]) -> Changes:
        """Supervise `pools` from now on. Touches only pools that are new, gone or different.

        A change of a pool that serves is staged: see `Change`. One that failed to start is not tried again.
        Must not run twice at a time.
        """
        found = changes(
            {pool_id: self._compared(member.pool, pools) for pool_id, member in self._members.items()}, pools
        )
        before = self._members
        self._members = {pool.id: before.get(pool.id) or self._member(pool, loaded=pool.preload) for pool in pools}
        for pool_id in found.removed:
            self._leaving[pool_id] = trio.Event()
            change = self._changes.pop(pool_id, None)
            self._nursery.start_soon(self._retire, before[pool_id], change, self._leaving[pool_id])
        for pool in pools:
            if pool.id in found.changed:
                self._begin(secrets.token_hex(8), pool)
        self._assign_ports()
        for pool_id in found.added:
            member, leaving = self._members[pool_id], self._leaving.get(pool_id)
            if leaving is not None:
                self._nursery.start_soon(self._add_again, leaving, member)
            else:
                await self._nursery.start(member.run)
        self._configured.set()
        return found

    def reload(self, pool: Pool, reload_id: str, keep: Callable[[], None]) -> None:
        """Prepare a configured pool anew, as `pool`, and replace its engine. Raises ReloadRunning.

        `keep` blocks; it is called once the new engine serves. Nothing happens if that reload has been begun already.
        """
        known = self._changes.get(pool.id)
        if known is not None and known.id == reload_id:
            return
        if known is not None and not known.ended.is_set():
            raise ReloadRunning
        self._begin(reload_id, pool, keep)

    def change(self, pool_id: str, reload_id: str) -> Change | None:
        """Return the change with this id unless it has ended."""
        change = self._changes.get(pool_id)
        return change if change and change.id == reload_id and not change.ended.is_set() else None

    def _compared(self, now: Pool, pools: Sequence[Pool]) -> Pool:
        """Return what the pools of the files are compared with, for a pool that is run as `now`."""
        change, read = self._changes.get(now.id), next((pool for pool in pools if pool.id == now.id), None)
        if change is None or read is None:
            return now
        if change.expects(read):
            return read
        return now if change.ended.is_set() else change.target

    def _begin(self, reload_id: str, target: Pool, keep: Callable[[], None] | None = None) -> None:
        """Begin a change, after an earlier one of the pool has been called off."""
        previous, former = self._changes.get(target.id), self._members[target.id].pool
        change = Change(reload_id, former, target, self, self._shared, self._reports, keep)
        self._changes[target.id] = change
        self._nursery.start_soon(self._change, change, previous, keep is not None)

    async def _change(self, change: Change, previous: Change | None, ordered: bool) -> None:
        """Make a change: staged if it was ordered or the pool serves, otherwise at once: nothing can be lost."""
        try:
            with change.scope:
                if previous is not None:
                    previous.scope.cancel()
                    await previous.ended.wait()
                await self._make(change, ordered)
            if change.scope.cancelled_caught:
                await change.cancelled()
        finally:
            change.ended.set()

    async def _make(self, change: Change, ordered: bool) -> None:
        target, report = change.target, self._reports.report(change.target.id)
        member = self._members[target.id]
        managed = member.pool.provisioning.starts_engine and target.provisioning.starts_engine
        serves = report is not None and report.state is PoolState.READY and not same_engine(member.pool, target)
        if managed and (ordered or serves):
            await change.run()
        elif not target.same_as(member.pool):
            await self._replace(member, target)

    async def _replace(self, before: Member, pool: Pool) -> None:
        """Run a changed pool at once. A unit is left running, to be adopted if it can."""
        before.scope.cancel()
        await before.ended.wait()
        if before.pool.provisioning.starts_engine and not pool.provisioning.starts_engine:
            await self._stop_engine(pool.id)
        await self._put(before, self._member(pool, loaded=pool.preload or before.wanted.loaded))

    def is_wanted(self, pool_id: str) -> bool:
        """Whether the pool is wanted loaded."""
        return self._members[pool_id].wanted.loaded

    async def stop(self, pool_id: str) -> None:
        """Stop the pool's engine, then its supervisor."""
        member = self._members[pool_id]
        member.wanted.unload()
        if (report := self._reports.report(pool_id)) and report.state in RUNNING:
            await self._reports.until(pool_id, (PoolState.UNLOADED, PoolState.FAILED))
        member.scope.cancel()
        await member.ended.wait()
        await self._stop_engine(pool_id, retired=False)

    async def start(self, pool: Pool, *, loaded: bool, prepared: Prepared | None = None) -> None:
        """Supervise `pool` in place of the one that was stopped."""
        residency = await describe_load(pool, self._shared, prepared) if prepared else None
        await self._put(self._members[pool.id], self._member(pool, loaded, prepared, residency))

    async def _put(self, before: Member, member: Member) -> None:
        """Put `member` in the place of `before`, unless the pool was removed meanwhile."""
        if self._members.get(member.pool.id) is before:
            self._members[member.pool.id] = member
            self._assign_ports()
            await self._nursery.start(member.run)

    def _member(
        self, pool: Pool, loaded: bool, prepared: Prepared | None = None, residency: Residency | None = None
    ) -> Member:
        reporter = PoolReporter(pool, self._reports, self._handoff_dir, residency)
        return Member(pool, self._shared, reporter, loaded, prepared)

    def _assign_ports(self) -> None:
        self._shared.ports.reassign(self.pools)

    async def _add_again(self, leaving: trio.Event, member: Member) -> None:
        """Run a pool that was removed shortly before, once nothing is left of it."""
        await leaving.wait()
        await member.run()

    async def _retire(self, member: Member, change: Change | None, done: trio.Event) -> None:
        """Stop a removed pool and its engine; set `done` when another one with its id may begin."""
        pool_id = member.pool.id
        if change is not None:
            change.scope.cancel()
            await change.ended.wait()
        member.scope.cancel()
        await member.ended.wait()
        await member.reporter.unloading()
        if member.pool.provisioning.starts_engine:
            await self._stop_engine(pool_id)
        last = await member.reporter.removed()
        done.set()
        if self._leaving.get(pool_id) is done:
            del self._leaving[pool_id]
        await trio.sleep(LAST_REPORT_S)
        await self._reports.forget(last)

    async def _stop_engine(self, pool_id: str, *, retired: bool = True) -> None:
        try:
            await self._shared.launcher.remove(pool_id)
        except (ProvisioningFailure, OSError) as failure:
            log.warning("the engine of pool %s may still be running: %s", pool_id, failure)
        else:
            if retired:
                emit(ENGINE_RETIRED, pool_id=pool_id)
