"""When each pool was loaded last: part of the wait of the tasks that were there, and so of their traces."""

import trio

from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.tasks.task import Task


class LoadTimes:
    """Times are of trio's clock. A load that is not `done` counts as done when a task starts on its pool: the
    dispatcher may notice that before the keeper does."""

    def __init__(self) -> None:
        self._loads: dict[PoolKey, tuple[float, float | None]] = {}

    def ordered(self, key: PoolKey) -> None:
        self._loads[key] = trio.current_time(), None

    def done(self, key: PoolKey) -> None:
        """The load ended, in whatever way; no effect if it had."""
        ordered_at, done_at = self._loads.get(key, (None, None))
        if ordered_at is not None and done_at is None:
            self._loads[key] = ordered_at, trio.current_time()

    def forget(self, key: PoolKey) -> None:
        self._loads.pop(key, None)

    def note(self, task: Task, target: Candidate) -> None:
        """Add the last load of `target` to the trace of a task that starts on it, if it has one and waited for it."""
        load = self._loads.get((target.pool_id, target.node_id or ""))
        if task.trace and load:
            ended_at = trio.current_time() if load[1] is None else load[1]
            task.trace.loaded(load[0], ended_at, submitted_at=task.measurements.submitted_at)
