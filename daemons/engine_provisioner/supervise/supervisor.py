"""One pool's task: live, and after each failure wait and live again. It never ends by itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import trio

from engine_provisioner import checksums
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.progress import DISK_STEP_S, Progress
from engine_provisioner.report.pool_reporter import Voice
from engine_provisioner.supervise import retries

CHANGE_LOOK_S = 1.0
Signatures = list[list[int] | None]


class Life(Protocol):
    """One try to have a pool: from nothing to ready, and on until the engine is lost."""

    async def live(self) -> NoReturn:
        """Ends by ProvisioningFailure only."""


class Supervisor:
    """Keeps a pool alive."""

    def __init__(self, life: Life, voice: Voice, progress: Progress) -> None:
        self._life = life
        self._voice = voice
        self._progress = progress

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Until cancelled."""
        task_status.started()
        attempts = retries.Attempts()
        while True:
            try:
                await self._life.live()
            except ProvisioningFailure as failure:
                attempts = await self._after(failure, attempts)
            except OSError as error:  # of the machine, wherever it came from: no reason to end the daemon
                attempts = await self._after(ProvisioningFailure(str(error)), attempts)

    async def _after(self, failure: ProvisioningFailure, before: retries.Attempts) -> retries.Attempts:
        """Say what failed and wait until it is time to try again."""
        attempts = before.after_failure(self._voice.ready_for_s)
        delay = retries.delay_s(failure.retry, attempts.failed)
        self._progress.expect(DISK_STEP_S, "reporting a failure")
        # before anybody is told: who mends the file thereupon changes it against this
        seen = await trio.to_thread.run_sync(signatures, failure.watch) if failure.watch else []
        await self._voice.failed(str(failure), retries.next_step(delay, bool(failure.watch), attempts.failed))
        await self._wait(delay, failure.watch, seen)
        return attempts

    async def _wait(self, delay: float | None, watched: Sequence[Path], seen: Signatures) -> None:
        """Wait for `delay` seconds, for ever if it is None, or until the `watched` files are no more as `seen`."""
        self._progress.rest("waiting for the next try")
        with trio.move_on_after(float("inf") if delay is None else delay):
            if not watched:
                await trio.sleep_forever()
            while await trio.to_thread.run_sync(signatures, watched) == seen:  # noqa: ASYNC110 -- files, no events
                await trio.sleep(CHANGE_LOOK_S)


def signatures(paths: Sequence[Path]) -> Signatures:
    """What changes when one of `paths` does; None for a file that cannot be seen. Blocks."""
    found: Signatures = []
    for path in paths:
        try:
            found.append(checksums.signature(path))
        except OSError:
            found.append(None)
    return found
