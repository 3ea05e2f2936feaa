"""The spans that have ended and wait for export: bounded, so that a dead collector costs memory only up to a limit.

The loop belongs to the daemon's nursery; only the export itself, which blocks, runs in a thread. OpenTelemetry's batch
processor would start a thread of its own, wait up to 30 s at the stop, and not count what it drops.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from math import inf

import trio
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from llama_orch.bell import Bell
from llama_orch.telemetry.events import service as events
from llama_orch.telemetry.records import emit
from llama_orch.telemetry.tracing.otlp import ExportFailure
from llama_orch.telemetry.tracing.spans import Loss

LIMIT = 2048
BATCH = 512
DELAY_S = 1.0
"""How long a span waits for others."""
BACK_OFF_S = (1, 2, 5, 10, 30)
"""Pauses after failed exports; the last one is repeated. The first failure is not reported: a collector may close a
connection that was idle."""

Export = Callable[[Sequence[ReadableSpan]], int]
"""Blocks until the collector has the spans; returns how many of them it refused. Raises ExportFailure."""

log = logging.getLogger("llama_orch.tracing")


class SpanQueue(SpanProcessor):
    """Spans end in the thread of trio's loop."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._waiting: deque[ReadableSpan] = deque()
        self._bell = Bell()
        self._stopping = trio.Event()
        self._stopped = trio.Event()
        self._failing = False
        self.exported = 0
        self.dropped: Counter[Loss] = Counter()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        pass

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span, or count it as dropped."""
        if len(self._waiting) >= LIMIT:
            self.dropped["queue_full"] += 1
            return
        self._waiting.append(span)
        if len(self._waiting) in (1, BATCH):
            self._bell.ring()

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return not self._waiting

    async def run(self, export: Export, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Export until `stop` is called."""
        task_status.started()
        while not self._stopping.is_set() or self._waiting:
            if not self._waiting:
                await self._bell.wait(inf)
            if len(self._waiting) < BATCH and not self._stopping.is_set():
                await self._bell.wait(DELAY_S)
            if self._waiting:
                await self._send([self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))], export)
        self._stopped.set()

    async def stop(self) -> None:
        """Export what waits, and return. The caller limits the time."""
        self._stopping.set()
        self._bell.ring()
        await self._stopped.wait()

    def abandon(self) -> None:
        """Count what still waits as dropped."""
        self.dropped["stopped"] += len(self._waiting)
        self._waiting.clear()

    async def _send(self, batch: list[ReadableSpan], export: Export) -> None:
        attempt = 0
        while True:
            try:
                refused = await trio.to_thread.run_sync(export, batch, abandon_on_cancel=True)
            except ExportFailure as failure:
                if attempt or not failure.retriable or self._stopping.is_set():
                    self._report(failure)
                if not failure.retriable or self._stopping.is_set():
                    self.dropped["refused" if not failure.retriable else "stopped"] += len(batch)
                    return
            except Exception:
                log.exception("%d spans are dropped: internal error in their export", len(batch))
                self.dropped["refused"] += len(batch)
                return
            else:
                self.exported += len(batch) - refused
                self.dropped["refused"] += refused
                self._recovered()
                return
            with trio.move_on_after(BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)]):
                await self._stopping.wait()
            attempt += 1

    def _report(self, failure: ExportFailure) -> None:
        if not self._failing:
            self._failing = True
            emit(events.TRACES_FAIL, endpoint=self._endpoint, reason=str(failure))

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            emit(events.TRACES_RESUMED, endpoint=self._endpoint, dropped=sum(self.dropped.values()))
