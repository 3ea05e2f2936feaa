"""A task's log read at its client's side: what has come, in pieces worth sending, while the task is attended."""

from dataclasses import dataclass, field

import trio

from llama_orch.contracts.tasks import TaskState
from queen_rbee.api.streaming import ATTEND_S, COALESCE_S
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.tasks.event_log import Frame
from queen_rbee.tasks.task import Task

NEVER = float("inf")


@dataclass
class Reader:
    """The only reader that a /v1 request has, from the first event on: what it has taken is kept no longer."""

    queue: AdmissionQueue[Task]
    task: Task
    _seen: int = field(default=0, init=False)

    @property
    def done(self) -> bool:
        """Whether nothing can come any more."""
        return self.task.log.closed and self._seen >= self.task.log.last_id

    async def news(self, until: float = NEVER) -> list[Frame]:
        """What has come since the last call; [] if nothing has by `until`, on trio's clock.

        The first piece of an answer is not held up; those behind it are taken as they gather.
        """
        log = self.task.log
        if self.task.measurements.first_token_at is not None and not log.closed:
            await trio.sleep(COALESCE_S)
        while not log.closed and log.last_id <= self._seen and (now := trio.current_time()) < until:
            waits = self.task.state is TaskState.QUEUED
            if waits:
                self.queue.attend(self.task)
            with trio.move_on_at(min(until, now + ATTEND_S) if waits else until):
                await log.wait_beyond(self._seen)
        frames = log.frame_batch(self._seen)
        self._seen += len(frames)
        log.discard(self._seen)
        return frames
