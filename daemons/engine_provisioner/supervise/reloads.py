"""Reading the pools files again while the daemon runs: in a reload of the daemon, and on POST /v2/pools/reload."""

import logging
import math
from collections.abc import Sequence
from typing import NoReturn

import trio

from engine_provisioner import cleanup
from engine_provisioner.launch.launcher import Launcher
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.spec.pools_file import PoolsFileError
from engine_provisioner.spec.replacements import PoolsSource
from engine_provisioner.supervise.changes import Changes
from engine_provisioner.supervise.pool_set import PoolSet
from llama_orch.bell import Bell
from llama_orch.service.notify import Notifier
from llama_orch.service.reload import Outcome
from llama_orch.telemetry.events.provisioning import POOLS_RELOAD_REFUSED, POOLS_RELOADED
from llama_orch.telemetry.records import emit

log = logging.getLogger("engine_provisioner.daemon")

Result = Changes | PoolsFileError


class Request:
    """A caller that waits for a reload which begins after its request."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: Result = Changes()


class Reloads:
    """Applies the files of `source` to the pool set, one reload at a time."""

    def __init__(self, source: PoolsSource, pools: PoolSet, reports: PoolReports, notifier: Notifier) -> None:
        self.source = source
        self._pools = pools
        self._reports = reports
        self._notifier = notifier
        self._bell = Bell()
        self._requests: list[Request] = []
        self._logged: Sequence[object] = []

    async def reload(self) -> Changes:
        """Read the files and apply them; return what has changed. Raises PoolsFileError, and changes nothing then."""
        request = Request()
        self._requests.append(request)
        self._bell.ring()
        await request.done.wait()
        if isinstance(request.outcome, PoolsFileError):
            raise request.outcome
        return request.outcome

    async def reload_configuration(self) -> Outcome:
        """Do the same as a part of a reload of the daemon."""
        try:
            return Outcome((f"pools files: {await self.reload()}",))
        except PoolsFileError as error:
            return Outcome(refused=tuple(map(str, error.problems)))

    async def run(self, launcher: Launcher) -> NoReturn:
        """Serve requests until cancelled. First stop engines of pools that were removed while no daemon ran."""
        await cleanup.stop_unconfigured(self._pools.pools, launcher)
        while True:
            await self._bell.wait(math.inf)
            requests, self._requests = self._requests, []
            outcome = await self._once()
            for request in requests:
                request.outcome = outcome
                request.done.set()

    async def _once(self) -> Result:
        self._notifier.reloading("reading the pools files again")
        try:
            pools = await trio.to_thread.run_sync(self.source.read)
        except PoolsFileError as error:
            if error.problems != self._logged:  # a path unit and an operator may ask for the same change
                for problem in error.problems:
                    emit(POOLS_RELOAD_REFUSED, problems=problem)
            self._logged = error.problems
            self._reports.set_refused(str(error.problems[0]))
            return error
        else:
            self._logged = []
            changes = await self._pools.apply(pools or [])
            emit(POOLS_RELOADED, changes=changes)
            self._reports.set_refused(None)
            return changes
        finally:
            self._notifier.ready(self._reports.summary())
