"""Start and stop the export of spans in a daemon."""

import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.sdk.version import __version__ as sdk_version

from llama_orch import VERSION
from llama_orch.telemetry.tracing.options import TraceOptions
from llama_orch.telemetry.tracing.otlp import Collector
from llama_orch.telemetry.tracing.span_queue import Export, SpanQueue
from llama_orch.telemetry.tracing.spans import Tracer, active

FLUSH_S = 2.0
"""How long a stop waits for the collector."""
TEXT_LIMIT = 1024
"""Characters of an attribute. A request's path and model name are the client's."""
ATTRIBUTE_LIMIT = 64


@asynccontextmanager
async def exporting(options: TraceOptions) -> AsyncIterator[Tracer]:
    """Export the spans of the block to the collector of `options`. Leaving it waits for FLUSH_S seconds at most."""
    collector = Collector(options)
    try:
        async with tracing(options, collector.export) as tracer:
            yield tracer
    finally:
        await trio.to_thread.run_sync(collector.close, abandon_on_cancel=True)


@asynccontextmanager
async def tracing(options: TraceOptions, export: Export) -> AsyncIterator[Tracer]:
    """As `exporting`, with `export` in place of a collector."""
    queue = SpanQueue(options.endpoint)
    tracer = Tracer(provider_of(options, queue), queue)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(queue.run, export))
        before = active.set(tracer)
        try:
            yield tracer
        finally:
            active.reset(before)
            with trio.move_on_after(FLUSH_S):
                await queue.stop()
            queue.abandon()
            nursery.cancel_scope.cancel()


def provider_of(options: TraceOptions, queue: SpanQueue) -> TracerProvider:
    """Return a provider that reads nothing from the environment: all values come from `options`."""
    provider = TracerProvider(
        sampler=sampler_of(options),
        resource=resource_of(options),
        shutdown_on_exit=False,
        span_limits=SpanLimits(
            max_attributes=ATTRIBUTE_LIMIT,
            max_events=16,
            max_links=16,
            max_span_attributes=ATTRIBUTE_LIMIT,
            max_event_attributes=16,
            max_link_attributes=16,
            max_attribute_length=TEXT_LIMIT,
            max_span_attribute_length=TEXT_LIMIT,
        ),
    )
    provider.add_span_processor(queue)
    return provider


def resource_of(options: TraceOptions) -> Resource:
    """Return what describes the daemon; OTEL_RESOURCE_ATTRIBUTES overrides all of it but service.name."""
    return Resource(
        {
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": sdk_version,
            "service.version": VERSION,
            "service.instance.id": str(uuid.uuid4()),
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            **options.attributes,
            "service.name": options.service_name,
        }
    )


def sampler_of(options: TraceOptions) -> Sampler:
    """Return the sampler by its name in OpenTelemetry's specification."""
    kind = options.sampler.removeprefix("parentbased_")
    root = {"always_on": ALWAYS_ON, "always_off": ALWAYS_OFF}.get(kind) or TraceIdRatioBased(options.ratio)
    return ParentBased(root) if options.sampler.startswith("parentbased_") else root
