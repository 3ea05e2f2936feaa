"""The reports of one pool: its state, its handoff file, and its events in the journal."""

import logging
from functools import partial
from pathlib import Path

import trio

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.report import handoffs
from engine_provisioner.report.handoffs import Announcement
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.workloads import expected
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState, ProvisioningReport, Residency
from llama_orch.telemetry.events.provisioning import (
    ENGINE_ADOPTED,
    ENGINE_FAILED,
    ENGINE_STARTED,
    ENGINE_UNLOADED,
    PROVISIONING_STARTED,
)
from llama_orch.telemetry.records import emit

log = logging.getLogger("engine_provisioner.pool")

REPEAT_FIRST_S, REPEAT_MAX_S = 60.0, 3600.0


class PoolReporter:
    """Reports the state changes of `pool`, and knows since when it is ready. `residency`: as far as it is known."""

    def __init__(self, pool: Pool, reports: PoolReports, handoff_dir: Path, residency: Residency | None = None) -> None:
        self.pool = pool
        self._reports = reports
        self._directory = handoff_dir
        self._attempt_began: float | None = None
        self._ready_since: float | None = None
        self._last_error: str | None = None
        self._residency = residency
        self._last_post: tuple[PoolState, str, str | None, Handoff | None] | None = None
        self._repeat_s, self._repeat_at = REPEAT_FIRST_S, 0.0

    @property
    def ready_for_s(self) -> float:
        """For how many seconds the pool has been ready; 0 if it is not."""
        return 0.0 if self._ready_since is None else trio.current_time() - self._ready_since

    async def reset(self) -> None:
        """Report the pool as uninitialized, which replaces the report of an earlier run."""
        self._reports.metrics.add_pool(self.pool.id)
        await self._post(PoolState.UNINITIALIZED, "not started yet")

    async def provisioning(self, detail: str) -> None:
        """Report that an attempt begins."""
        self._attempt_began = trio.current_time()
        if self._last_error is None:
            emit(PROVISIONING_STARTED, pool_id=self.pool.id, detail=detail)
        await self._post(PoolState.PROVISIONING, detail)

    async def progress(self, detail: str) -> None:
        """Report progress of the attempt."""
        await self._post(PoolState.PROVISIONING, detail)

    async def starting(self, detail: str) -> None:
        """Report that the engine was started, or that an external engine is loading."""
        await self._post(PoolState.STARTING, detail)

    async def offline(self, detail: str) -> None:
        """Report that the pool's engine has ended with the daemon."""
        await self._post(PoolState.OFFLINE, detail)

    async def describe(self, residency: Residency) -> None:
        """Add to this report and all later ones what loading the pool takes."""
        self._residency = residency
        if self._last_post:
            await self._post(*self._last_post)

    async def unloading(self) -> None:
        """Withdraw the handoff file and report that the engine is about to be stopped, as wanted."""
        await self.withdraw()
        self._ready_since = None
        await self._post(PoolState.DRAINING, "unloading: the engine is being stopped")

    async def unloaded(self, detail: str) -> None:
        """Report that engine and model are ready to be loaded, and no engine runs."""
        if self._last_post and self._last_post[0] is PoolState.DRAINING:
            emit(ENGINE_UNLOADED, pool_id=self.pool.id)
        self._ready_since = self._last_error = None
        await self._post(PoolState.UNLOADED, detail)

    async def removed(self) -> ProvisioningReport:
        """Report for the last time that the pool is no longer configured; return that report."""
        self._reports.metrics.add_pool(self.pool.id)  # a pool may be removed before its first report
        return await self._reports.remove(self.pool.id)

    async def ready(self, announced: Announcement, *, adopted: bool) -> None:
        """Write the handoff file, then report the pool as ready. Raises ProvisioningFailure."""
        try:
            document = await trio.to_thread.run_sync(handoffs.write, self._directory, announced)
        except OSError as error:
            message = f"cannot write the handoff file into {self._directory}: {error.strerror or error}"
            hint = "Check free disk space and that engine-provisioner may write there."
            raise ProvisioningFailure(message, hint) from error
        fields = {"pool_id": self.pool.id, "url": announced.url, "engine": announced.engine}
        event = ENGINE_ADOPTED if adopted else ENGINE_STARTED
        metrics = self._reports.metrics
        (metrics.adoptions if adopted else metrics.starts).labels(self.pool.id).inc()
        if self._attempt_began is not None and not adopted:
            metrics.durations.labels(self.pool.id).observe(trio.current_time() - self._attempt_began)
        file = handoffs.path_of(self._directory, self.pool.id)
        emit(event, **fields, engine_version=announced.engine_version, file=file)
        self._ready_since, self._last_error = trio.current_time(), None
        detail = f"{announced.engine} {announced.engine_version} at {announced.url}"
        await self._post(PoolState.READY, detail, handoff=document)

    async def failed(self, reason: str, next_step: str) -> None:
        """Withdraw the handoff file and report the failure.

        The journal gets each new reason at once. It gets a persistent one again after 1, 2, 4, … minutes, at most an
        hour apart; otherwise "tried again in 0.5 s" would remain the last entry of a pool that fails for hours.
        """
        await self.withdraw()
        now = trio.current_time()
        is_new = reason != self._last_error
        if is_new or now >= self._repeat_at:
            emit(ENGINE_FAILED, pool_id=self.pool.id, last_error=reason, next_step=next_step)
            self._repeat_s = REPEAT_FIRST_S if is_new else min(2 * self._repeat_s, REPEAT_MAX_S)
            self._repeat_at = now + self._repeat_s
        self._ready_since, self._last_error = None, reason
        self._reports.metrics.failures.labels(self.pool.id).inc()
        await self._post(PoolState.FAILED, next_step, reason)

    async def lost(self) -> None:
        """Report at once that the engine is gone; `failed` follows with the reason."""
        await self.withdraw()
        await self._post(PoolState.STARTING, "the engine has ended; its last output is being read")

    def count_exit(self, cause: str) -> None:
        """Count an engine that ended or was stopped; `cause` is one of metrics.EXIT_CAUSES."""
        self._reports.metrics.exits.labels(self.pool.id, cause).inc()

    async def withdraw(self) -> None:
        """Remove the handoff file unless pool-managerd has taken it."""
        try:
            await trio.to_thread.run_sync(partial(handoffs.remove, self._directory, self.pool.id))
        except OSError as error:
            log.warning("cannot remove the handoff file of pool %s: %s", self.pool.id, error.strerror or error)

    async def _post(
        self, state: PoolState, detail: str, last_error: str | None = None, handoff: Handoff | None = None
    ) -> None:
        self._last_post = state, detail, last_error, handoff
        shown_error = last_error if state in (PoolState.FAILED, PoolState.READY) else self._last_error
        workloads = expected(self.pool)
        await self._reports.post(
            self.pool.id, self.pool.engine, state, detail, shown_error, handoff, workloads, self._residency
        )
