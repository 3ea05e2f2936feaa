"""The task that keeps one pool running: it runs attempts, and waits after each failure."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import trio

from engine_provisioner import checksums
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.step_deadline import DISK_STEP_S, StepDeadline
from engine_provisioner.supervise import retries
from engine_provisioner.supervise.retries import Failures
from engine_provisioner.supervise.wanted import Wanted

FILE_CHECK_S = 1.0
Signatures = list[list[int] | None]


class PoolRunner(Protocol):
    """Provisions a pool, reports it as ready, and watches its engine."""

    async def run(self) -> NoReturn:
        """Run one attempt, which ends only by ProvisioningFailure or OSError."""


class Supervisor:
    """Runs a pool again after each failure, and at once when somebody asks to load or unload it."""

    def __init__(self, runner: PoolRunner, reporter: PoolReporter, deadline: StepDeadline, wanted: Wanted) -> None:
        self._runner = runner
        self._reporter = reporter
        self._deadline = deadline
        self._wanted = wanted

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Run until cancelled."""
        task_status.started()
        failures = Failures()
        while True:
            try:
                await self._runner.run()
            except ProvisioningFailure as failure:
                failures = await self._after(failure, failures)
            except OSError as error:  # a fault of the machine must fail this pool, not the daemon
                failures = await self._after(ProvisioningFailure(str(error)), failures)

    async def _after(self, failure: ProvisioningFailure, before: Failures) -> Failures:
        """Report `failure` and wait until the next attempt is due; return the failures that count then.

        A request to load the pool makes one attempt, and a changed file a fresh start.
        """
        requests = self._wanted.requests
        failures = before.after(failure.retry, trio.current_time(), self._reporter.ready_for_s)
        delay = retries.delay_s(failure.retry, failures, random.random())  # noqa: S311 -- jitter
        self._deadline.expect(DISK_STEP_S, "reporting a failure")
        # taken before the report, so that a fix made in response to it counts as a change
        seen = await trio.to_thread.run_sync(signatures, failure.watch) if failure.watch else []
        await self._reporter.failed(str(failure), retries.next_step(delay, bool(failure.watch), failures))
        self._deadline.rest("waiting for the next attempt")
        changed = False
        with trio.move_on_after(float("inf") if delay is None else delay):
            changed = await self._changed(failure.watch, seen, requests)
        return Failures() if changed else failures

    async def _changed(self, watched: Sequence[Path], seen: Signatures, requests: int) -> bool:
        """Return True when the signatures of `watched` differ from `seen`, False when somebody asks for the pool."""
        while True:
            with trio.move_on_after(FILE_CHECK_S if watched else float("inf")):
                await self._wanted.requested(requests)
                return False
            if await trio.to_thread.run_sync(signatures, watched) != seen:
                return True


def signatures(paths: Sequence[Path]) -> Signatures:
    """Return the signature of each file, or None if it cannot be read. Blocks."""
    found: Signatures = []
    for path in paths:
        try:
            found.append(checksums.signature(path))
        except OSError:
            found.append(None)
    return found
