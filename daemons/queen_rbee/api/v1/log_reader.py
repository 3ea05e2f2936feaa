"""Reader of a task's event log on behalf of the /v1 client that waits for the answer."""

from dataclasses import dataclass, field

import trio

from llama_orch.contracts.tasks import TaskState
from queen_rbee.api.streaming import COALESCE_S, TOUCH_INTERVAL_S
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.tasks.event_log import Frame
from queen_rbee.tasks.task import Task


@dataclass
class TaskLogReader:
    """The only reader of a /v1 task's log. It discards what it has read."""

    queue: AdmissionQueue[Task]
    task: Task
    _seen: int = field(default=0, init=False)

    @property
    def done(self) -> bool:
        """Whether everything has been read and nothing more can come."""
        return self.task.log.closed and self._seen >= self.task.log.last_id

    async def read(self, until: float = float("inf")) -> list[Frame]:
        """Wait for new frames and return them; return [] if there are none by `until`, on trio's clock.

        The first token is returned at once; later ones are gathered for COALESCE_S.
        """
        log = self.task.log
        if self.task.measurements.first_token_at is not None and not log.closed:
            await trio.sleep(COALESCE_S)
        while not log.closed and log.last_id <= self._seen and (now := trio.current_time()) < until:
            queued = self.task.state is TaskState.QUEUED
            if queued:
                self.queue.attend(self.task)
            with trio.move_on_at(min(until, now + TOUCH_INTERVAL_S) if queued else until):
                await log.wait_beyond(self._seen)
        frames = log.frame_batch(self._seen)
        self._seen += len(frames)
        log.discard(self._seen)
        return frames
