"""A staged change of a pool: prepare the new engine while the old one serves, then replace it, or keep the old one.

The queen drains the pool in between. If it does not say so within CLAIM_S, there is none, and the change goes on.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.sources.model_name import short_name
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.step_deadline import DISK_STEP_S, StepDeadline
from engine_provisioner.supervise.preparation import Prepared, SharedResources, check_header, prepare
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.reloads import PoolReload, ReloadState
from llama_orch.telemetry.events.provisioning import POOL_RELOAD_FAILED, POOL_RELOADED
from llama_orch.telemetry.records import emit

log = logging.getLogger("engine_provisioner.pool")

CLAIM_S = 10.0
"""How long a staged change waits for the queen to say that it drains the pool."""
DRAIN_LIMIT_S = 3600.0
"""How long the queen may take for that. Then the engine is replaced, whatever it does."""
SETTLED = (PoolState.READY, PoolState.UNLOADED, PoolState.FAILED)


class Supervisors(Protocol):
    """What starts and stops the supervisors of pools."""

    def is_wanted(self, pool_id: str) -> bool:
        """Whether the pool is wanted loaded."""

    async def stop(self, pool_id: str) -> None:
        """Stop the pool's engine and supervisor."""

    async def start(self, pool: Pool, *, loaded: bool, prepared: Prepared | None = None) -> None:
        """Supervise `pool` in place of the one that was stopped."""


class Change:
    """The change of one pool from `former` to `target`, to be cancelled by its `scope`, which its owner enters.

    `keep`, only for a reload that was ordered, blocks; it is called when the new engine has proved to work.
    """

    def __init__(
        self,
        reload_id: str,
        former: Pool,
        target: Pool,
        supervisors: Supervisors,
        shared: SharedResources,
        reports: PoolReports,
        keep: Callable[[], None] | None = None,
    ) -> None:
        self.id = reload_id
        self.former = former
        self.target = target
        self.state = ReloadState.STAGING
        self.failed_to_start = False
        """Whether the new engine was started and failed."""
        self.deadline = StepDeadline(target.id)
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self._supervisors = supervisors
        self._shared = shared
        self._reports = reports
        self._keep = keep
        self._claimed = trio.Event()
        self._drained = trio.Event()

    async def run(self) -> None:
        """Make the change and report the result."""
        await self._show(ReloadState.STAGING, "checking the engine and the model")
        try:
            prepared = await prepare(self.target, self._shared, self.deadline, self._progress)
            await check_header(self.target, prepared)
        except (ProvisioningFailure, OSError) as failure:
            await self._fail(str(failure), "the former engine goes on")
            return
        self.deadline.rest("waiting until the pool is drained")
        await self._until_drained()
        await self._switch(prepared)

    async def cancelled(self) -> None:
        """Report that the change was called off."""
        await self._show(ReloadState.CANCELLED, "called off")

    def expects(self, pool: Pool) -> bool:
        """Whether `pool`, of the pools files, is no reason to change anything: it leads to this change, or to its end.

        An ordered reload is not in the files yet. What has failed to start is not tried again.
        """
        if self.ended.is_set():
            return self.failed_to_start and pool.same_as(self.target)
        return pool.same_as(self.target if self._keep is None else self.former)

    def claim(self, *, drained: bool) -> None:
        """Wait for the queen to drain the pool; with `drained` it has."""
        self._claimed.set()
        if drained:
            self._drained.set()

    async def _progress(self, detail: str) -> None:
        await self._show(ReloadState.STAGING, detail)

    async def _until_drained(self) -> None:
        report = self._reports.report(self.target.id)
        if report is None or report.state is not PoolState.READY:
            return  # it has no tasks
        await self._show(ReloadState.STAGED, "engine and model are ready; the pool is being drained")
        with trio.move_on_after(CLAIM_S):
            await self._claimed.wait()
        if not self._claimed.is_set():
            log.info("pool %s is changed without being drained: no queen has answered", self.target.id)
            return
        with trio.move_on_after(DRAIN_LIMIT_S) as limit:
            await self._drained.wait()
        if limit.cancelled_caught:
            log.warning("pool %s is changed although it was not drained within %g s", self.target.id, DRAIN_LIMIT_S)

    async def _switch(self, prepared: Prepared) -> None:
        pool_id = self.target.id
        loaded = self._supervisors.is_wanted(pool_id)
        await self._show(ReloadState.SWITCHING, "the engine is being replaced" if loaded else "the pool is not loaded")
        await self._supervisors.stop(pool_id)
        await self._supervisors.start(self.target, loaded=loaded, prepared=prepared)
        report = await self._reports.until(pool_id, SETTLED)
        if report.state is not PoolState.FAILED:
            await self._succeed(prepared)
            return
        cause, self.failed_to_start = report.last_error or "the new engine failed", True
        await self._show(ReloadState.REVERTING, "the former engine is started again", cause)
        await self._supervisors.stop(pool_id)
        await self._supervisors.start(self.former, loaded=loaded)
        report = await self._reports.until(pool_id, SETTLED)
        serves = "the former engine serves again" if loaded else "the pool is as it was"
        also = f"the former engine does not start either: {report.last_error}"
        await self._fail(cause, also if report.state is PoolState.FAILED else serves)

    async def _succeed(self, prepared: Prepared) -> None:
        self.deadline.expect(DISK_STEP_S, "recording the new model")
        detail = f"its model is {short_name(prepared.model.name)}"
        try:
            if self._keep:
                await trio.to_thread.run_sync(self._keep)
        except OSError as error:
            detail += f", until engine-provisioner restarts: it cannot be recorded ({error.strerror or error})"
        self.deadline.rest("changed")
        emit(POOL_RELOADED, pool_id=self.target.id, detail=detail)
        await self._show(ReloadState.DONE, detail)

    async def _fail(self, reason: str, detail: str) -> None:
        self.deadline.rest("failed")
        emit(POOL_RELOAD_FAILED, pool_id=self.target.id, reason=reason, detail=detail)
        await self._show(ReloadState.FAILED, detail, reason)

    async def _show(self, state: ReloadState, detail: str, error: str | None = None) -> None:
        self.state = state
        shown = PoolReload(reload_id=self.id, state=state, detail=detail[:1024], error=error and error[:4096])
        await self._reports.set_reload(self.target.id, shown)
