"""What a full queue says: refusals that tell when to come back, and the places of those who do."""

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.estimates import MARGIN, backoff_ms
from queen_rbee.promises import Promises
from queen_rbee.tasks.task import Task


class Backpressure:
    """Owns the promises made to refused clients."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._promises = Promises()

    def let_in(self, task: Task) -> bool:
        """Whether `task` comes back when it was told to; then it gives way to nobody.

        Raises the refusal of a newcomer whose place is promised to another; the queue itself may be full or not. Under
        drop-lru no place is kept: there whoever comes back takes that of one who was promised nothing.
        """
        queue, now = self._dispatcher.queue, trio.current_time()
        if not len(self._promises):
            return False
        if self._promises.claim(task.identity, now):
            return True
        if queue.policy == "drop-lru":
            return False
        slots = self._dispatcher.forecast.capacity(task.demand).slots_total
        if not self._promises.admits(len(queue), queue.capacity, slots, now):
            raise self.refused(task)
        return False

    def refused(self, task: Task) -> ApiError:
        """429: there is no room for `task`, and when there will be."""
        queue, metrics, engine = self._dispatcher.queue, self._dispatcher.metrics, task.request.engine or ""
        metrics.backpressure.labels(engine, queue.policy).inc()
        metrics.rejected.labels(engine, ErrorCode.ADMISSION_REJECT.value).inc()
        kept = 0 if queue.policy == "drop-lru" else self._promises.kept_free(queue.capacity, trio.current_time())
        places = f", places kept for those who were told to come: {kept}" if kept else ""
        waiting = f"{len(queue)} of {queue.capacity} tasks wait, with {queue.weight >> 20} MiB of prompts{places}"
        message = f"the queue is full ({waiting})"
        wait_s = self._promise(task)
        return self.busy(429, ErrorCode.ADMISSION_REJECT, message, label=queue.policy, wait_s=wait_s)

    def dropped(self, task: Task) -> int:
        """`task` gives way to a newer one: in how many milliseconds it may come again."""
        policy = self._dispatcher.queue.policy
        self._dispatcher.metrics.backpressure.labels(task.request.engine or "", policy).inc()
        return backoff_ms(self._promise(task))

    def _promise(self, task: Task) -> float:
        now, again_s = trio.current_time(), self._dispatcher.again_s(task.demand)
        if not self._dispatcher.forecast.capacity(task.demand).slots_total:
            return again_s  # the queue does not move: no place can be promised
        return self._promises.promise(task.identity, now, MARGIN * again_s)

    def busy(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        hint: str | None = None,
        *,
        label: str | None = None,
        wait_s: float | None = None,
    ) -> ApiError:
        """A refusal that tells when to come back: in `wait_s` seconds, or when the queue has moved by one place."""
        if wait_s is None:
            wait_s = self._dispatcher.forecast.gap_s(trio.current_time())
        wait_ms = backoff_ms(wait_s)
        headers = (("retry-after", str(-(-wait_ms // 1000))), ("x-backoff-ms", str(wait_ms)))
        body = ErrorBody(
            code=code, message=message, hint=hint, retriable=True, retry_after_ms=wait_ms, policy_label=label
        )
        return ApiError(status, body, headers)
