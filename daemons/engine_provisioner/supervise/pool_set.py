"""The supervisors of all configured pools. Pools come, change and go while the daemon runs."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.modes.external import ExternalMode
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.step_deadline import StepDeadline
from engine_provisioner.supervise.changes import Changes, changes
from engine_provisioner.supervise.external_pool import ExternalPool
from engine_provisioner.supervise.managed_pool import ManagedPool, SharedResources
from engine_provisioner.supervise.supervisor import PoolRunner, Supervisor
from engine_provisioner.supervise.wanted import Wanted
from llama_orch.telemetry.events.provisioning import ENGINE_RETIRED
from llama_orch.telemetry.records import emit

log = logging.getLogger("engine_provisioner.pool")

LAST_REPORT_S = 10.0
"""How long the last report of a removed pool stays, so that pool-managerd reads it."""


@dataclass(frozen=True)
class Member:
    """A pool with its supervisor. `ended` is set when that has ended, with its engine if it is a child process."""

    pool: Pool
    reporter: PoolReporter
    wanted: Wanted
    deadline: StepDeadline
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


class PoolSet:
    """Supervises the configured pools while `run` runs. The one owner of the supervisors."""

    def __init__(self, shared: SharedResources, reports: PoolReports, handoff_dir: Path) -> None:
        self._shared = shared
        self._reports = reports
        self._handoff_dir = handoff_dir
        self._members: dict[str, Member] = {}
        self._leaving: dict[str, trio.Event] = {}
        self._configured = trio.Event()
        self._nursery: trio.Nursery

    @property
    def pools(self) -> list[Pool]:
        """The configured pools, in the order of the files."""
        return [member.pool for member in self._members.values()]

    @property
    def deadlines(self) -> Iterator[StepDeadline]:
        """The deadlines of the supervisors."""
        return (member.deadline for member in self._members.values())

    async def configured(self) -> dict[str, Pool]:
        """Return the configured pools by id, as soon as pools have been applied."""
        await self._configured.wait()
        return {pool_id: member.pool for pool_id, member in self._members.items()}

    def wanted(self, pool_id: str) -> Wanted:
        """Return the wanted state of a configured pool. It has no effect on an external one."""
        return self._members[pool_id].wanted

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the supervisors until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def apply(self, pools: Sequence[Pool]) -> Changes:
        """Supervise `pools` from now on. Touches only pools that are new, gone or different.

        A changed pool starts once its former supervisor has ended; its engine is replaced only if its command changes.
        Must not run twice at a time.
        """
        found = changes({pool_id: member.pool for pool_id, member in self._members.items()}, pools)
        before = self._members
        self._shared.ports.reassign(list(pools))
        self._members = {pool.id: before[pool.id] if pool.id in found.kept else self._member(pool) for pool in pools}
        for pool_id in found.removed:
            self._leaving[pool_id] = trio.Event()
            self._nursery.start_soon(self._retire, before[pool_id], self._leaving[pool_id])
        for pool_id in found.changed:
            before[pool_id].scope.cancel()
            self._nursery.start_soon(self._replace, before[pool_id], self._members[pool_id])
        for pool_id in found.added:
            member, leaving = self._members[pool_id], self._leaving.get(pool_id)
            if leaving is not None:
                self._nursery.start_soon(self._add_again, leaving, member)
            else:
                await self._nursery.start(self._supervise, member)
        self._configured.set()
        return found

    def _member(self, pool: Pool) -> Member:
        before = self._members.get(pool.id)
        loaded = pool.preload or (before is not None and before.wanted.loaded)
        reporter = PoolReporter(pool, self._reports, self._handoff_dir)
        return Member(pool, reporter, Wanted(loaded), StepDeadline(pool.id))

    async def _supervise(self, member: Member, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the pool until its scope is cancelled."""
        try:
            with member.scope:
                await member.reporter.reset()
                task_status.started()
                await Supervisor(self._runner(member), member.reporter, member.deadline, member.wanted).run()
        finally:
            member.ended.set()

    def _runner(self, member: Member) -> PoolRunner:
        pool = member.pool
        if isinstance(pool.provisioning, ExternalMode):
            return ExternalPool(pool, pool.provisioning, member.reporter, member.deadline)
        return ManagedPool(pool, self._shared, member.reporter, member.deadline, member.wanted)

    async def _replace(self, before: Member, member: Member) -> None:
        """Run a changed pool once its former supervisor has ended. A unit is left running, to be adopted if it can."""
        await before.ended.wait()
        if before.pool.provisioning.starts_engine and not member.pool.provisioning.starts_engine:
            await self._stop_engine(member.pool.id)
        await self._supervise(member)

    async def _add_again(self, leaving: trio.Event, member: Member) -> None:
        """Run a pool that was removed shortly before, once nothing is left of it."""
        await leaving.wait()
        await self._supervise(member)

    async def _retire(self, member: Member, done: trio.Event) -> None:
        """Stop a removed pool and its engine; set `done` when another one with its id may begin."""
        pool_id = member.pool.id
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

    async def _stop_engine(self, pool_id: str) -> None:
        try:
            await self._shared.launcher.remove(pool_id)
        except (ProvisioningFailure, OSError) as failure:
            log.warning("the engine of the removed pool %s may still be running: %s", pool_id, failure)
        else:
            emit(ENGINE_RETIRED, pool_id=pool_id)
