"""A pool with its supervisor, and what it consists of."""

import trio

from engine_provisioner.modes.external import ExternalMode
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.step_deadline import StepDeadline
from engine_provisioner.supervise.external_pool import ExternalPool
from engine_provisioner.supervise.managed_pool import ManagedPool
from engine_provisioner.supervise.preparation import Prepared, SharedResources
from engine_provisioner.supervise.supervisor import Supervisor
from engine_provisioner.supervise.wanted import Wanted


class Member:
    """A pool with its supervisor. `ended` is set when that has ended, with its engine if it is a child process.

    `prepared`: engine and model for the first load, if they have been prepared already.
    """

    def __init__(
        self, pool: Pool, shared: SharedResources, reporter: PoolReporter, loaded: bool, prepared: Prepared | None
    ) -> None:
        self.pool = pool
        self.reporter = reporter
        self.wanted = Wanted(loaded)
        self.deadline = StepDeadline(pool.id)
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self._runner: ManagedPool | ExternalPool
        if isinstance(pool.provisioning, ExternalMode):
            self._runner = ExternalPool(pool, pool.provisioning, reporter, self.deadline)
        else:
            self._runner = ManagedPool(pool, shared, reporter, self.deadline, self.wanted, prepared)

    @property
    def prepared(self) -> Prepared | None:
        """The latest engine and model of the pool, None if they have not been obtained."""
        return self._runner.prepared if isinstance(self._runner, ManagedPool) else None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the pool until `scope` is cancelled. Reports it once, then is started."""
        try:
            with self.scope:
                await self.reporter.reset()
                task_status.started()
                await Supervisor(self._runner, self.reporter, self.deadline, self.wanted).run()
        finally:
            self.ended.set()
