"""A dead, slow or broken collector costs dropped spans, which are counted, and nothing else."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing
from opentelemetry.sdk.trace import ReadableSpan

from llama_orch.telemetry.tracing import provider, span_queue
from llama_orch.telemetry.tracing.metrics import SpanCounters
from llama_orch.telemetry.tracing.options import TraceOptions
from llama_orch.telemetry.tracing.otlp import ExportFailure
from llama_orch.telemetry.tracing.provider import tracing
from llama_orch.telemetry.tracing.spans import step

OPTIONS = TraceOptions("http://collector:4317", "test")
DEAD = ExportFailure("connection refused", retriable=True)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_queue, "DELAY_S", 0.001)
    monkeypatch.setattr(span_queue, "BACK_OFF_S", (0.001,))


class ScriptedCollector:
    """Answers each export with the next of `answers`; the last one is repeated."""

    def __init__(self, *answers: Exception | int) -> None:
        self._answers = list(answers)
        self.exports = 0
        self.received = 0
        self.asked = trio.Event()

    def __call__(self, spans: Sequence[ReadableSpan]) -> int:
        self.exports += 1
        trio.from_thread.run_sync(self.asked.set)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        self.received += len(spans)
        return answer


def end_spans(count: int) -> None:
    for _number in range(count):
        with step("work", root=True):
            pass


def events(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record.event.name for record in caplog.records if hasattr(record, "event")]


async def until(condition: Any) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 -- any condition
            await trio.sleep(0.001)


async def test_spans_are_exported_in_batches_and_counted() -> None:
    collector = ScriptedCollector(0)
    async with tracing(OPTIONS, collector) as tracer:
        end_spans(3 * span_queue.BATCH)
        await until(lambda: tracer.queue.exported == 3 * span_queue.BATCH)
    assert collector.exports == 3


async def test_spans_of_a_second_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_queue, "DELAY_S", 3600.0)
    collector = ScriptedCollector(0)
    async with tracing(OPTIONS, collector) as tracer:
        for _span in range(span_queue.BATCH - 1):
            end_spans(1)
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert collector.exports == 0
        end_spans(1)
        await until(lambda: tracer.queue.exported == span_queue.BATCH)
    assert collector.exports == 1


async def test_waiting_spans_are_exported_at_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_queue, "DELAY_S", 3600.0)
    collector = ScriptedCollector(0)
    async with tracing(OPTIONS, collector):
        end_spans(5)
    assert collector.received == 5


async def test_dead_collector_is_reported_once_and_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_queue, "LIMIT", 10)
    monkeypatch.setattr(span_queue, "BATCH", 5)
    collector = ScriptedCollector(DEAD)
    async with tracing(OPTIONS, collector) as tracer:
        end_spans(5)
        await collector.asked.wait()
        end_spans(100)
        await until(lambda: collector.exports > 5)
        assert tracer.queue.dropped["queue_full"] == 90
        samples = [sample for family in SpanCounters().collect() for sample in family.samples]
        assert (samples[0].value, samples[1].labels, samples[1].value) == (0, {"reason": "queue_full"}, 90)
    assert events(caplog) == ["traces_fail"]
    assert tracer.queue.dropped == {"queue_full": 90, "stopped": 15}


async def test_collector_that_returns_gets_the_spans(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    collector = ScriptedCollector(DEAD, DEAD, DEAD, 0)
    async with tracing(OPTIONS, collector) as tracer:
        end_spans(5)
        await until(lambda: tracer.queue.exported == 5)
    assert events(caplog) == ["traces_fail", "traces_resumed"]


async def test_one_failed_attempt_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    async with tracing(OPTIONS, ScriptedCollector(DEAD, 0)) as tracer:
        end_spans(5)
        await until(lambda: tracer.queue.exported == 5)
    assert events(caplog) == []


async def test_refused_spans_are_dropped_and_not_sent_again() -> None:
    collector = ScriptedCollector(ExportFailure("status 401", retriable=False), 2)
    async with tracing(OPTIONS, collector) as tracer:
        end_spans(5)
        await until(lambda: tracer.queue.dropped["refused"] == 5)
        end_spans(5)
        await until(lambda: tracer.queue.exported == 3)
    assert collector.exports == 2
    assert tracer.queue.dropped["refused"] == 7


async def test_defect_in_the_export_does_not_end_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    async with tracing(OPTIONS, ScriptedCollector(RuntimeError("a defect"), 0)) as tracer:
        end_spans(5)
        await until(lambda: tracer.queue.dropped["refused"] == 5)
        end_spans(5)
        await until(lambda: tracer.queue.exported == 5)
    assert "internal error in their export" in caplog.text


async def test_stop_does_not_wait_for_a_slow_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "FLUSH_S", 0.01)
    asked, answering = trio.Event(), threading.Event()

    def export(_spans: Sequence[ReadableSpan]) -> int:
        trio.from_thread.run_sync(asked.set)
        answering.wait()
        return 0

    try:
        with trio.fail_after(10):
            async with tracing(OPTIONS, export) as tracer:
                end_spans(5)
                await asked.wait()
                end_spans(3)
        assert tracer.queue.dropped["stopped"] == 3
    finally:
        answering.set()


async def test_steps_cost_nothing_without_traces() -> None:
    with step("work", root=True) as span:
        assert span is None


async def test_failed_step_names_the_exception_and_not_its_message() -> None:
    kept: list[ReadableSpan] = []

    def export(spans: Sequence[ReadableSpan]) -> int:
        kept.extend(spans)
        return 0

    async with tracing(OPTIONS, export):
        with pytest.raises(LookupError), step("work", root=True):
            raise LookupError("a secret")
    assert (kept[0].attributes or {})["error.type"] == "LookupError"
    assert "a secret" not in kept[0].to_json()
