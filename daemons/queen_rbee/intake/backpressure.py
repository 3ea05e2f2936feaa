"""Refusals of a full queue: when to retry, and places reserved for clients that retry then."""

from collections import deque
from collections.abc import Hashable

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.http.server.preferences import applied
from queen_rbee.dispatch.estimates import RETRY_MARGIN, backoff_ms
from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.outages import Outages
from queen_rbee.dispatch.promises import Promises
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Demand
from queen_rbee.tasks.task import Task

GRACE_S = 3.0
"""How long a place stays reserved after its time: Retry-After has whole seconds, and clients need a moment."""
PLACES_PER_UPCOMING = 8
"""One of this many places is kept for reservations whose time comes next: slots that started together come free
together, while clients retry at an even pace. (Simulated with 4 slots and a queue of 64: of the clients that retry on
time all get in; 81 % without it.)"""
MAX_RESERVATIONS = 10_000
MAX_WAIT_S = 3600.0
NOT_LOADED = "no model that could serve the task is loaded now"
NOT_LOADED_HINT = "It is loaded for a retry at that time. Without wait=0 the task waits for it."


class Reservations:
    """Places reserved for refused clients, in the order of their times.

    `key` recognises a client that retries; the same key may hold several places.
    """

    def __init__(self, grace_s: float = GRACE_S, limit: int = MAX_RESERVATIONS) -> None:
        self._grace_s = grace_s
        self._limit = limit
        self._upcoming: deque[tuple[float, Hashable]] = deque()
        self._due: dict[int, tuple[float, Hashable]] = {}
        self._due_by_key: dict[Hashable, deque[int]] = {}
        self._last_time = 0.0
        self._number = 0

    def __len__(self) -> int:
        return len(self._upcoming) + len(self._due)

    def due(self, now: float) -> int:
        """Return how many clients may retry at any moment."""
        self._advance(now)
        return len(self._due)

    def reserved(self, capacity: int, now: float) -> int:
        """Return how many of `capacity` places are closed to clients without a reservation."""
        due = self.due(now)
        return due + min(len(self._upcoming), -(-capacity // PLACES_PER_UPCOMING))

    def _advance(self, now: float) -> None:
        """Make reservations due whose time has come, and forget those that nobody claimed in time."""
        while self._upcoming and self._upcoming[0][0] <= now:
            time, key = self._upcoming.popleft()
            self._number += 1
            self._due[self._number] = (time, key)
            self._due_by_key.setdefault(key, deque()).append(self._number)
        while self._due and (oldest := next(iter(self._due.values()))) and oldest[0] + self._grace_s < now:
            self._forget(oldest[1])

    def _forget(self, key: Hashable) -> None:
        numbers = self._due_by_key[key]
        del self._due[numbers.popleft()]
        if not numbers:
            del self._due_by_key[key]

    def claim(self, key: Hashable, now: float) -> bool:
        """Use up a due reservation of `key`; False if it has none."""
        self._advance(now)
        if key not in self._due_by_key:
            return False
        self._forget(key)
        return True

    def reserve(self, key: Hashable, now: float, gap_s: float) -> float:
        """Reserve the next place for `key`, where places come free every `gap_s` seconds.

        Return in how many seconds to retry; MAX_WAIT_S if no place could be reserved.
        """
        self._advance(now)
        time = max(self._last_time, now) + gap_s
        if time - now > MAX_WAIT_S or len(self) >= self._limit:
            return MAX_WAIT_S
        self._last_time = time
        self._upcoming.append((time, key))
        return time - now

    def admits(self, depth: int, capacity: int, minimum: int, now: float) -> bool:
        """Return whether a client without a reservation gets a place in a queue of `depth` tasks.

        With fewer than `minimum` waiting tasks everybody does, so that slots never idle because of reservations.
        """
        return depth < capacity and (depth < minimum or depth + self.reserved(capacity, now) < capacity)


class Backpressure:
    """Decides who gets the places of a full queue, and tells the others when to retry."""

    def __init__(
        self,
        queue: AdmissionQueue[Task],
        forecast: Forecast,
        outages: Outages[Demand],
        promises: Promises[Demand],
        metrics: Metrics,
    ) -> None:
        self._queue = queue
        self._forecast = forecast
        self._outages = outages
        self._promises = promises
        self._metrics = metrics
        self._reservations = Reservations()

    def claim_reservation(self, task: Task) -> bool:
        """Return whether `task` has a reservation; then it must never be dropped.

        Raises ApiError 429 for a task without one if all free places are reserved. Says nothing about whether the queue
        is full. Under drop-lru no places are kept: a task with a reservation drops one without.
        """
        if not len(self._reservations):
            return False
        now = trio.current_time()
        if self._reservations.claim(task.retry_key, now):
            return True
        if self._queue.policy == "drop-lru":
            return False
        slots = self._forecast.capacity(task.demand).slots_total
        if not self._reservations.admits(len(self._queue), self._queue.capacity, slots, now):
            raise self.queue_full(task)
        return False

    def queue_full(self, task: Task) -> ApiError:
        """Return the 429 for `task`, and reserve a place for its retry."""
        queue, metrics, engine = self._queue, self._metrics, task.request.engine or ""
        metrics.backpressure.labels(engine, queue.policy).inc()
        metrics.rejected.labels(engine, ErrorCode.ADMISSION_REJECT.value).inc()
        reserved = 0 if queue.policy == "drop-lru" else self._reservations.reserved(queue.capacity, trio.current_time())
        details = f"{len(queue)} of {queue.capacity} tasks wait, with {queue.weight >> 20} MiB of prompts"
        details += f", places reserved for clients that retry: {reserved}" if reserved else ""
        message = f"the queue is full ({details})"
        wait_s = self._reserve(task)
        return self.retry_later(429, ErrorCode.ADMISSION_REJECT, message, label=queue.policy, wait_s=wait_s)

    def dropped_retry_ms(self, task: Task) -> int:
        """Count a dropped task and reserve a place for its retry; return in how many milliseconds to retry."""
        self._metrics.backpressure.labels(task.request.engine or "", self._queue.policy).inc()
        return backoff_ms(self._reserve(task))

    def _reserve(self, task: Task) -> float:
        now, retry_s = trio.current_time(), self.retry_s(task.demand)
        if not self._forecast.capacity(task.demand).slots_total:
            return retry_s  # the queue does not move: no place can be reserved
        if task.share:  # where users have keys, places are shared instead of reserved
            return retry_s / self._queue.fraction(task.share)
        return self._reservations.reserve(task.retry_key, now, RETRY_MARGIN * retry_s)

    def retry_s(self, demand: Demand) -> float:
        """Return in how many seconds a refused client should retry."""
        now = trio.current_time()
        if self._forecast.capacity(demand).slots_total:
            return self._forecast.gap_s(now)
        arrival = self._forecast.arrival(demand)
        return arrival.in_s if arrival else self._outages.retry_s(demand, now)

    def not_loaded(self, task: Task) -> ApiError:
        """Return the 503 for a task that must not wait for a load, and let its model be loaded for its retry."""
        now, retry_s = trio.current_time(), self.retry_s(task.demand)
        self._promises.add(task.demand, now, now + retry_s)
        self._metrics.rejected.labels(task.request.engine or "", ErrorCode.POOL_UNREADY.value).inc()
        error = self.retry_later(503, ErrorCode.POOL_UNREADY, NOT_LOADED, NOT_LOADED_HINT, wait_s=retry_s)
        return ApiError(error.status, error.body, (*error.headers, *applied(task.request.wait_s)))

    def retry_later(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        hint: str | None = None,
        *,
        label: str | None = None,
        wait_s: float | None = None,
    ) -> ApiError:
        """Return a retriable refusal: retry in `wait_s` seconds, or when the queue has moved by one place."""
        if wait_s is None:
            wait_s = self._forecast.gap_s(trio.current_time())
        wait_ms = backoff_ms(wait_s)
        headers = (("retry-after", str(-(-wait_ms // 1000))), ("x-backoff-ms", str(wait_ms)))
        body = ErrorBody(
            code=code, message=message, hint=hint, retriable=True, retry_after_ms=wait_ms, policy_label=label
        )
        return ApiError(status, body, headers)
