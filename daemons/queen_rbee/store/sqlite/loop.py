"""The loop that does all writing: it takes the pending batch, writes it in a thread, and wakes the waiting callers.

Operations that arrive during a write form the next batch: the slower the disk, the larger the batches. If several
callers shared a batch, the next one begins PACE_S after it began or later, because a commit costs as much CPU as ten
tasks. Operations that no caller waits for are collected for LATER_S. No caller waits longer than STALL_S (plus a
watchdog interval) for a disk that does not answer. While writes fail, callers get the failure at once, and the loop
retries every RETRY_S.
"""

from collections.abc import Callable
from functools import partial

import trio

from llama_orch.bell import Bell
from llama_orch.service.watchdog import Pulse
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.store.protocol import StoreFailure
from queen_rbee.store.sqlite.batch import Batch
from queen_rbee.store.sqlite.database import Database
from queen_rbee.store.sqlite.failures import DISK_HINT, failure

LATER_S = 0.05
PACE_S = 0.004
PAUSE_S = 1.0
"""The files are cleaned up after this idle time."""
RETRY_S = 1.0
STALL_S = 10.0
STOPPING = "queen-rbee is stopping"
UNAWAITED_LIMIT = 10_000
"""How many unawaited documents of a kind are kept in memory while writes fail."""


class BatchLoop:
    """Callers add operations to `pending`; `run` writes them. On cancellation `run` writes the rest and closes."""

    def __init__(self, database: Database) -> None:
        self.pending = Batch()
        self._database = database
        self._writing = Batch()
        self._began_at = float("-inf")
        """When the last write began, on trio's clock."""
        self._in_thread_since: float | None = None
        self._work, self._urgent = Bell(), Bell()
        self._limiter = trio.CapacityLimiter(1)
        self._failure: StoreFailure | None = None
        self._dropped = 0
        self.closed = False

    def check_writable(self) -> None:
        """Raise StoreFailure if the store is closed or writes are failing."""
        if self.closed:
            raise StoreFailure(STOPPING)
        if self._failure:
            raise copy_failure(self._failure)

    def notify(self) -> None:
        """Tell the loop that `pending` has operations that no caller waits for."""
        self._work.ring()

    async def wait_written(self, batch: Batch) -> None:
        """Wait until `batch`, which must be `pending`, is written or has failed; see its `failure`."""
        batch.callers += 1
        if batch.callers == 1:
            self._work.ring()
            self._urgent.ring()
        await batch.done.wait()

    async def run(self, pulse: Pulse) -> None:
        """Write forever. Cancellation does not interrupt a write."""
        watching = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, pulse, watching)
            try:
                while True:
                    idle = await self._wait(pulse)
                    with trio.CancelScope(shield=True):
                        await self._work_once(idle=idle)
            finally:
                with trio.CancelScope(shield=True):
                    await self._close()
                watching.cancel()

    async def _watch(self, pulse: Pulse, scope: trio.CancelScope) -> None:
        """Look after the thread until `scope` is cancelled.

        The watchdog is fed while the thread works, because a restart does not help if the disk stalls.
        """
        with scope:
            while True:
                await trio.sleep(pulse.interval_s)
                if self._in_thread_since is None:
                    continue
                pulse.beat()
                if trio.current_time() - self._in_thread_since > STALL_S:
                    self._fail_stalled()

    async def _wait(self, pulse: Pulse) -> bool:
        """Wait until there is work. Return whether there was none for PAUSE_S or a watchdog interval."""
        pulse.beat()
        idle = False
        if not self.pending and not self._failure:
            pause_s = PAUSE_S if self._database.needs_clean_up else pulse.interval_s
            idle = not await self._work.wait(min(pause_s, pulse.interval_s))
        if not self.pending.callers and not idle:
            await self._urgent.wait(min(RETRY_S if self._failure else LATER_S, pulse.interval_s))
        if pause_s := pause_before_write(self._writing.callers, trio.current_time() - self._began_at):
            await trio.sleep(pause_s)
        return idle

    async def _work_once(self, *, idle: bool) -> None:
        if self.pending or self._failure:
            await self._write()
        if self._database.clean_up_due or (idle and self._database.needs_clean_up):
            failed = await self._in_thread(self._database.clean_up)
            if failed:
                self._report_failure(failed)

    async def _write(self) -> None:
        batch, self.pending = self.pending, Batch()
        if self._failure:
            batch.repairs = batch.durable = True
        self._writing, self._began_at = batch, trio.current_time()
        failed = await self._in_thread(partial(self._database.work, batch))
        if failed:
            self._retry_later(batch)
            self._report_failure(failed)
        else:
            self._database.marks.forget(batch.erased)
            self._report_recovery()
        batch.settle(failed)

    async def _in_thread(self, work: Callable[[], StoreFailure | None]) -> StoreFailure | None:
        """Run blocking `work`."""
        self._in_thread_since = trio.current_time()
        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._in_thread_since = None

    def _fail_stalled(self) -> None:
        """Fail all waiting callers because the disk does not answer. The write in progress may still succeed."""
        detail = f"the disk has not answered for {STALL_S:g} s"
        stalled = failure("{file}: {detail}", DISK_HINT, self._database.file, detail)
        self._report_failure(stalled)
        self._writing.settle(stalled)
        waiting, self.pending = self.pending, Batch()
        self._retry_later(waiting)
        waiting.settle(stalled)

    def _retry_later(self, batch: Batch) -> None:
        self._dropped += self.pending.take_over(batch, UNAWAITED_LIMIT)

    def _report_failure(self, failed: StoreFailure) -> None:
        if self._failure is None:
            emit(events.STORE_FAILING, problem=failed, hint=failed.hint)
        self._failure = failed

    def _report_recovery(self) -> None:
        if self._failure:
            emit(events.STORE_WORKING, file=self._database.file, lost=self._dropped)
        self._failure, self._dropped = None, 0

    async def _close(self) -> None:
        """Write the pending operations once, then close the database."""
        self.closed = True
        if self.pending:
            await self._write()
        self.pending.settle(StoreFailure(STOPPING))
        failed = await self._in_thread(self._database.close)
        if failed:
            self._report_failure(failed)


def pause_before_write(callers: int, since_s: float) -> float:
    """Return how many seconds to collect operations before the next write.

    `callers` shared the last write, which began `since_s` seconds ago. After a write for a single caller there is no
    pause: at low load nobody waits for others.
    """
    return max(0.0, PACE_S - since_s) if callers > 1 else 0.0


def copy_failure(original: StoreFailure) -> StoreFailure:
    """Return a copy for another caller: an exception that is raised repeatedly accumulates tracebacks."""
    return StoreFailure(str(original), original.hint)
