"""The task that keeps one pool running: it runs attempts, and waits after each failure."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import trio

from engine_provisioner import checksums
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.step_deadline import DISK_STEP_S, StepDeadline
from engine_provisioner.supervise import retries

FILE_CHECK_S = 1.0
Signatures = list[list[int] | None]


class PoolRunner(Protocol):
    """Provisions a pool, reports it as ready, and watches its engine."""

    async def run(self) -> NoReturn:
        """Run one attempt, which ends only by ProvisioningFailure or OSError."""


class Supervisor:
    """Runs a pool again after each failure."""

    def __init__(self, runner: PoolRunner, reporter: PoolReporter, deadline: StepDeadline) -> None:
        self._runner = runner
        self._reporter = reporter
        self._deadline = deadline

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Run until cancelled."""
        task_status.started()
        failures = retries.FailureCount()
        while True:
            try:
                await self._runner.run()
            except ProvisioningFailure as failure:
                failures = await self._after(failure, failures)
            except OSError as error:  # a fault of the machine must fail this pool, not the daemon
                failures = await self._after(ProvisioningFailure(str(error)), failures)

    async def _after(self, failure: ProvisioningFailure, before: retries.FailureCount) -> retries.FailureCount:
        """Report `failure` and wait until the next attempt is due."""
        failures = before.after_failure(self._reporter.ready_for_s)
        delay = retries.delay_s(failure.retry, failures.failed)
        self._deadline.expect(DISK_STEP_S, "reporting a failure")
        # taken before the report, so that a fix made in response to it counts as a change
        seen = await trio.to_thread.run_sync(signatures, failure.watch) if failure.watch else []
        await self._reporter.failed(str(failure), retries.next_step(delay, bool(failure.watch), failures.failed))
        await self._wait(delay, failure.watch, seen)
        return failures

    async def _wait(self, delay: float | None, watched: Sequence[Path], seen: Signatures) -> None:
        """Wait for `delay` seconds (None: forever), or until the signatures of `watched` differ from `seen`."""
        self._deadline.rest("waiting for the next attempt")
        with trio.move_on_after(float("inf") if delay is None else delay):
            if not watched:
                await trio.sleep_forever()
            while await trio.to_thread.run_sync(signatures, watched) == seen:  # noqa: ASYNC110 -- files, no events
                await trio.sleep(FILE_CHECK_S)


def signatures(paths: Sequence[Path]) -> Signatures:
    """Return the signature of each file, or None if it cannot be read. Blocks."""
    found: Signatures = []
    for path in paths:
        try:
            found.append(checksums.signature(path))
        except OSError:
            found.append(None)
    return found
