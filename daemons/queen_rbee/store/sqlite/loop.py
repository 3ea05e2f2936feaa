"""The loop that owns the writing: what waits becomes a batch, one thread writes it, and whoever waits for it wakes.

What comes while a batch is being written becomes the next one: the slower the disk, the larger the batches. What
nobody waits for may gather for LATER_S and goes along with what is urgent. Nobody waits longer than STALL_S (and a
pulse) for a disk that does not answer; while nothing can be stored, callers are told at once and the loop tries every
RETRY_S.
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
from queen_rbee.store.sqlite.failures import DISK, failure

LATER_S = 0.05
PAUSE_S = 1.0
"""After so much quiet, in seconds, the files are tidied."""
RETRY_S = 1.0
STALL_S = 10.0
STOPPING = "queen-rbee is stopping"
KEPT_DOCUMENTS = 10_000
"""How many documents of a kind that nobody waits for are kept in memory while nothing can be stored."""


class BatchLoop:
    """`pending` is the batch that callers add to; `run` writes it, and ends with everything written and closed."""

    def __init__(self, database: Database) -> None:
        self.pending = Batch()
        self._database = database
        self._writing = Batch()
        self._stirred, self._hurried = Bell(), Bell()
        self._limiter = trio.CapacityLimiter(1)
        self._trouble: StoreFailure | None = None
        self._lost = 0
        self.closed = False

    def refuse(self) -> None:
        """Raise StoreFailure when it is known that nothing can be stored now."""
        if self.closed:
            raise StoreFailure(STOPPING)
        if self._trouble:
            raise again(self._trouble)

    def stir(self) -> None:
        """There is something in `pending` that nobody waits for."""
        self._stirred.ring()

    async def settled(self, batch: Batch) -> None:
        """Wait until `batch`, which is `pending`, is written or has failed; see its `failure`."""
        if not batch.awaited:
            batch.awaited = True
            self._stirred.ring()
            self._hurried.ring()
        await batch.done.wait()

    async def run(self, pulse: Pulse) -> None:
        """Write for ever. What has been begun is ended, whatever is cancelled."""
        try:
            while True:
                quiet = await self._rest(pulse)
                with trio.CancelScope(shield=True):
                    await self._turn(pulse, tidies=quiet)
        finally:
            with trio.CancelScope(shield=True):
                await self._close(pulse)

    async def _rest(self, pulse: Pulse) -> bool:
        """Wait until there is something to do; whether there was nothing at all for a while."""
        pulse.beat()
        quiet = False
        if not self.pending and not self._trouble:
            pause_s = PAUSE_S if self._database.untidy else pulse.interval_s
            quiet = not await self._stirred.wait(min(pause_s, pulse.interval_s))
        if not self.pending.awaited and not quiet:
            await self._hurried.wait(min(RETRY_S if self._trouble else LATER_S, pulse.interval_s))
        return quiet

    async def _turn(self, pulse: Pulse, *, tidies: bool) -> None:
        if self.pending or self._trouble:
            await self._write(pulse)
        if self._database.tidying_due or (tidies and self._database.untidy):
            failed = await self._by_thread(self._database.tidied, pulse)
            if failed:
                self._in_trouble(failed)

    async def _write(self, pulse: Pulse) -> None:
        batch, self.pending = self.pending, Batch()
        if self._trouble:
            batch.repairs = batch.durable = True
        self._writing = batch
        failed = await self._by_thread(partial(self._database.work, batch), pulse)
        if failed:
            self._retry_later(batch)
            self._in_trouble(failed)
        else:
            self._database.marks.forget(batch.gone)
            self._out_of_trouble()
        batch.settle(failed)

    async def _by_thread(self, work: Callable[[], StoreFailure | None], pulse: Pulse) -> StoreFailure | None:
        """Do blocking `work`; the pulse goes on, since no restart would mend a disk that stalls."""
        failures: list[StoreFailure | None] = []
        done = trio.Event()

        async def call() -> None:
            failures.append(await trio.to_thread.run_sync(work, limiter=self._limiter))
            done.set()

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            while not done.is_set():
                await pulse.wait(done)
                if trio.current_time() - began > STALL_S:
                    self._give_up()
        return failures[0]

    def _give_up(self) -> None:
        """Tell everyone who waits that the disk does not answer. What it is at may yet succeed."""
        words = f"the disk has not answered for {STALL_S:g} s"
        stalled = failure("{file}: {words}", DISK, self._database.file, words)
        self._in_trouble(stalled)
        self._writing.settle(stalled)
        waiting, self.pending = self.pending, Batch()
        self._retry_later(waiting)
        waiting.settle(stalled)

    def _retry_later(self, batch: Batch) -> None:
        self._lost += self.pending.takes_over(batch, KEPT_DOCUMENTS)

    def _in_trouble(self, failed: StoreFailure) -> None:
        if self._trouble is None:
            emit(events.STORE_FAILING, problem=failed, hint=failed.hint)
        self._trouble = failed

    def _out_of_trouble(self) -> None:
        if self._trouble:
            emit(events.STORE_WORKING, file=self._database.file, lost=self._lost)
        self._trouble, self._lost = None, 0

    async def _close(self, pulse: Pulse) -> None:
        """Write what waits, once; then empty the files."""
        self.closed = True
        if self.pending:
            await self._write(pulse)
        self.pending.settle(StoreFailure(STOPPING))
        failed = await self._by_thread(self._database.close, pulse)
        if failed:
            self._in_trouble(failed)


def again(known: StoreFailure) -> StoreFailure:
    """The same failure for one more caller: an exception that is raised twice gathers tracebacks."""
    return StoreFailure(str(known), known.hint)
