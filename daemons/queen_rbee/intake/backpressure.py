"""What a full queue says: refusals that tell when to come back, and the places of those who do."""

from collections import deque
from collections.abc import Hashable

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.estimates import MARGIN, backoff_ms
from queen_rbee.tasks.task import Task

GRACE_S = 3.0
"""A place is kept so long after its time: Retry-After has whole seconds, and a client needs a moment."""
AHEAD = 8
"""Of so many places one is kept for those whose time comes next: slots that began together come free together, and
meanwhile those that were told an even pace keep coming. (Simulated with 4 slots and room for 64: of those that come at
the very moment 1.00 get in, without it 0.81.)"""
KEPT = 10_000
LONGEST_S = 3600.0


class Promises:
    """Promised places in the order of their times. A client is known by whatever it says again: `key`."""

    def __init__(self, grace_s: float = GRACE_S, kept: int = KEPT) -> None:
        self._grace_s = grace_s
        self._kept = kept
        self._future: deque[tuple[float, Hashable]] = deque()
        self._due: dict[int, tuple[float, Hashable]] = {}
        self._by_key: dict[Hashable, deque[int]] = {}
        self._last = 0.0
        self._number = 0

    def __len__(self) -> int:
        return len(self._future) + len(self._due)

    def due(self, now: float) -> int:
        """How many may come at any moment: their time has come."""
        self._turn(now)
        return len(self._due)

    def kept_free(self, capacity: int, now: float) -> int:
        """How many of `capacity` places a newcomer must leave to those that were told to come."""
        due = self.due(now)
        return due + min(len(self._future), -(-capacity // AHEAD))

    def _turn(self, now: float) -> None:
        """Promises whose time has come become due, those that nobody has claimed in time are forgotten."""
        while self._future and self._future[0][0] <= now:
            when, key = self._future.popleft()
            self._number += 1
            self._due[self._number] = (when, key)
            self._by_key.setdefault(key, deque()).append(self._number)
        while self._due and (oldest := next(iter(self._due.values()))) and oldest[0] + self._grace_s < now:
            self._forget(oldest[1])

    def _forget(self, key: Hashable) -> None:
        numbers = self._by_key[key]
        del self._due[numbers.popleft()]
        if not numbers:
            del self._by_key[key]

    def claim(self, key: Hashable, now: float) -> bool:
        """Whether `key` comes when it was told to; its place is its own then."""
        self._turn(now)
        if key not in self._by_key:
            return False
        self._forget(key)
        return True

    def promise(self, key: Hashable, now: float, gap_s: float) -> float:
        """In how many seconds `key` shall come back, where places come free every `gap_s` seconds."""
        self._turn(now)
        when = max(self._last, now) + gap_s
        if when - now > LONGEST_S or len(self) >= self._kept:
            return LONGEST_S
        self._last = when
        self._future.append((when, key))
        return when - now

    def admits(self, depth: int, capacity: int, at_least: int, now: float) -> bool:
        """Whether a newcomer without a promise may have one of the free places of a queue that is `depth` long.

        Slots must not idle for the sake of promises: below `at_least` waiting tasks everybody is welcome.
        """
        return depth < capacity and (depth < at_least or depth + self.kept_free(capacity, now) < capacity)


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
