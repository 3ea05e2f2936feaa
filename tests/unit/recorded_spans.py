"""Record the spans of a block in memory, with OpenTelemetry's own exporter."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

from llama_orch.telemetry.tracing.options import TraceOptions
from llama_orch.telemetry.tracing.provider import tracing

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""A client's traceparent, sampled."""
UNSAMPLED = CALLER[:-1] + "0"

Tree = dict[str, Any]


class RecordedSpans:
    """The spans, complete once the block of `recorded_spans` has been left."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @property
    def all(self) -> list[ReadableSpan]:
        """All spans, by the time they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> ReadableSpan:
        """The only span with this name."""
        (span,) = (span for span in self.all if span.name == name)
        return span

    def children(self, parent: ReadableSpan) -> list[ReadableSpan]:
        assert parent.context
        return [span for span in self.all if span.parent and span.parent.span_id == parent.context.span_id]

    @property
    def tree(self) -> Tree:
        """The names of all spans, each with those of its children; the roots are those whose parent is not here."""
        here = {span.context.span_id for span in self.all if span.context}
        return self._subtree([span for span in self.all if not span.parent or span.parent.span_id not in here])

    def _subtree(self, spans: list[ReadableSpan]) -> Tree:
        return {span.name: self._subtree(self.children(span)) for span in spans}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def traceparent(span: ReadableSpan) -> str:
    """The header of a request that `span` makes, without the flags."""
    assert span.context
    return f"00-{format_trace_id(span.context.trace_id)}-{format_span_id(span.context.span_id)}"


@asynccontextmanager
async def recorded_spans(**options: Any) -> AsyncIterator[RecordedSpans]:
    """Trace the block; `options` are fields of TraceOptions."""
    recorded = RecordedSpans()

    def export(spans: Any) -> int:
        recorded.exporter.export(spans)
        return 0

    async with tracing(TraceOptions("http://collector:4317", "test", **options), export):
        yield recorded
