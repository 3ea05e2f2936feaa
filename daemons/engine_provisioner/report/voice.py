"""What one pool says of itself: its state on the board, its engine in a handoff file, both in the journal."""

import logging
from functools import partial
from pathlib import Path

import trio

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.report import announcing
from engine_provisioner.report.announcing import Announcement
from engine_provisioner.report.board import Board
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.workloads import expected
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState
from llama_orch.telemetry.events.provisioning import ENGINE_ADOPTED, ENGINE_FAILED, ENGINE_STARTED, PROVISIONING_STARTED
from llama_orch.telemetry.records import emit

log = logging.getLogger("engine_provisioner.pool")

REPEAT_FIRST_S, REPEAT_MOST_S = 60.0, 3600.0


class Voice:
    """Speaks for `pool`. Owns the knowledge since when it has been ready."""

    def __init__(self, pool: Pool, board: Board, handoff_dir: Path) -> None:
        self.pool = pool
        self._board = board
        self._directory = handoff_dir
        self._began: float | None = None
        self._ready_since: float | None = None
        self._last_error: str | None = None
        self._repeat_s, self._repeat_at = REPEAT_FIRST_S, 0.0

    @property
    def ready_for_s(self) -> float:
        """For how many seconds the pool has been ready; 0 when it is not."""
        return 0.0 if self._ready_since is None else trio.current_time() - self._ready_since

    async def unstarted(self) -> None:
        """Nothing is known yet; replaces what an earlier run has reported."""
        self._board.metrics.add(self.pool.id)
        await self._state(PoolState.UNINITIALIZED, "not looked at yet")

    async def provisioning(self, detail: str) -> None:
        """Something is being fetched or checked."""
        self._began = trio.current_time()
        if self._last_error is None:
            emit(PROVISIONING_STARTED, pool_id=self.pool.id, detail=detail)
        await self._state(PoolState.PROVISIONING, detail)

    async def progress(self, detail: str) -> None:
        """How far it is."""
        await self._state(PoolState.PROVISIONING, detail)

    async def starting(self, detail: str) -> None:
        """The engine has been started, or somebody else's is being waited for."""
        await self._state(PoolState.STARTING, detail)

    async def idle(self, detail: str) -> None:
        """The pool is as it is meant to be, without an engine."""
        await self._state(PoolState.OFFLINE, detail)

    async def ready(self, announced: Announcement, *, adopted: bool) -> None:
        """Write the handoff file, then say that the pool is ready. Raises ProvisioningFailure when it cannot."""
        try:
            document = await trio.to_thread.run_sync(announcing.write, self._directory, announced)
        except OSError as error:
            what = f"the handoff file cannot be written into {self._directory}: {error.strerror or error}"
            raise ProvisioningFailure(what, "See that there is room, and that the daemon may write there.") from error
        fields = {"pool_id": self.pool.id, "url": announced.url, "engine": announced.engine}
        event = ENGINE_ADOPTED if adopted else ENGINE_STARTED
        metrics = self._board.metrics
        (metrics.adoptions if adopted else metrics.starts).labels(self.pool.id).inc()
        if self._began is not None and not adopted:
            metrics.durations.labels(self.pool.id).observe(trio.current_time() - self._began)
        file = announcing.file_of(self._directory, self.pool.id)
        emit(event, **fields, engine_version=announced.engine_version, file=file)
        self._ready_since, self._last_error = trio.current_time(), None
        detail = f"{announced.engine} {announced.engine_version} at {announced.url}"
        await self._state(PoolState.READY, detail, handoff=document)

    async def failed(self, reason: str, next_step: str) -> None:
        """Withdraw the engine and say why the pool is not to be had.

        The journal gets each new reason, and one that stays so again after a minute, two, four, up to an hour: else
        "tried again in 0.5 s" would be the last that is heard of a pool which is tried, and fails, for hours.
        """
        await self.withdraw()
        now = trio.current_time()
        new = reason != self._last_error
        if new or now >= self._repeat_at:
            emit(ENGINE_FAILED, pool_id=self.pool.id, last_error=reason, next_step=next_step)
            self._repeat_s = REPEAT_FIRST_S if new else min(2 * self._repeat_s, REPEAT_MOST_S)
            self._repeat_at = now + self._repeat_s
        self._ready_since, self._last_error = None, reason
        self._board.metrics.failures.labels(self.pool.id).inc()
        await self._state(PoolState.FAILED, next_step, reason)

    def lost(self, cause: str) -> None:
        """Count an engine that ended or was given up; `cause` is one of metrics.EXITS."""
        self._board.metrics.exits.labels(self.pool.id, cause).inc()

    async def withdraw(self) -> None:
        """Take the handoff file back if nobody has taken it."""
        try:
            await trio.to_thread.run_sync(partial(announcing.withdraw, self._directory, self.pool.id))
        except OSError as error:
            log.warning("cannot remove the handoff file of pool %s: %s", self.pool.id, error.strerror or error)

    async def _state(
        self, state: PoolState, detail: str, last_error: str | None = None, handoff: Handoff | None = None
    ) -> None:
        shown = last_error if state in (PoolState.FAILED, PoolState.READY) else self._last_error
        workloads = expected(self.pool)
        await self._board.post(self.pool.id, self.pool.engine, state, detail, shown, handoff, workloads)
