"""Counters of spans, read from the active tracer at each scrape; 0 without traces."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from llama_orch.telemetry.tracing.spans import Loss, active

LOSSES: tuple[Loss, ...] = ("queue_full", "refused", "stopped")


class SpanCounters(Collector):
    """Register it once in the registry of a daemon."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        tracer = active.get()
        yield CounterMetricFamily(
            "llama_orch_spans_exported",
            "Spans that the collector accepted.",
            value=tracer.queue.exported if tracer else 0,
        )
        dropped = CounterMetricFamily(
            "llama_orch_spans_dropped", "Spans that were not exported, by reason.", labels=["reason"]
        )
        for reason in LOSSES:
            dropped.add_metric([reason], tracer.queue.dropped[reason] if tracer else 0)
        yield dropped
