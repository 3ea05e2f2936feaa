"""What one pool says of itself: its state on the board, its engine in a handoff file, both in the journal."""

import logging
from functools import partial
from pathlib import Path

import trio

from engine_provisioner import announcing
from engine_provisioner.announcing import Announcement
from engine_provisioner.board import Board
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.pool_spec import Pool
from engine_provisioner.workloads import expected
from llama_orch.contracts.pools import PoolState
from llama_orch.telemetry.events import ENGINE_ADOPTED, ENGINE_FAILED, ENGINE_STARTED, PROVISIONING_STARTED
from llama_orch.telemetry.records import emit

log = logging.getLogger("engine_provisioner.pool")


class Voice:
    """Speaks for `pool`. Owns the knowledge since when it has been ready."""

    def __init__(self, pool: Pool, board: Board, handoff_dir: Path) -> None:
        self.pool = pool
        self._board = board
        self._directory = handoff_dir
        self._ready_since: float | None = None
        self._last_error: str | None = None

    @property
    def ready_for_s(self) -> float:
        """For how many seconds the pool has been ready; 0 when it is not."""
        return 0.0 if self._ready_since is None else trio.current_time() - self._ready_since

    async def unstarted(self) -> None:
        """Nothing is known yet; replaces what an earlier run has reported."""
        await self._state(PoolState.UNINITIALIZED, "not looked at yet")

    async def provisioning(self, detail: str) -> None:
        """Something is being fetched or checked."""
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
            file = await trio.to_thread.run_sync(announcing.write, self._directory, announced)
        except OSError as error:
            what = f"the handoff file cannot be written into {self._directory}: {error.strerror or error}"
            raise ProvisioningFailure(what, "See that there is room, and that the daemon may write there.") from error
        fields = {"pool_id": self.pool.id, "url": announced.url, "engine": announced.engine}
        event = ENGINE_ADOPTED if adopted else ENGINE_STARTED
        if not adopted:
            self._board.starts.labels(self.pool.id).inc()
        emit(event, **fields, engine_version=announced.engine_version, file=file)
        self._ready_since, self._last_error = trio.current_time(), None
        await self._state(PoolState.READY, f"{announced.engine} {announced.engine_version} at {announced.url}")

    async def failed(self, reason: str, next_step: str) -> None:
        """Withdraw the engine and say why the pool is not to be had. The journal gets each reason once."""
        await self.withdraw()
        if reason != self._last_error:
            emit(ENGINE_FAILED, pool_id=self.pool.id, last_error=reason, next_step=next_step)
        self._ready_since, self._last_error = None, reason
        self._board.failures.labels(self.pool.id).inc()
        await self._state(PoolState.FAILED, next_step, reason)

    async def withdraw(self) -> None:
        """Take the handoff file back if nobody has taken it."""
        try:
            await trio.to_thread.run_sync(partial(announcing.withdraw, self._directory, self.pool.id))
        except OSError as error:
            log.warning("cannot remove the handoff file of pool %s: %s", self.pool.id, error.strerror or error)

    async def _state(self, state: PoolState, detail: str, last_error: str | None = None) -> None:
        shown = last_error if state in (PoolState.FAILED, PoolState.READY) else self._last_error
        await self._board.post(self.pool.id, self.pool.engine, state, detail, shown, expected(self.pool))
