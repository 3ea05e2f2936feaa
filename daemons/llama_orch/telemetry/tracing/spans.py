"""Spans as the daemons make them. Nothing of OpenTelemetry is imported before a daemon exports traces.

`active` is None in a daemon without traces, and that check is all that they cost it then. Like the correlation id, the
tracer and the current span are context variables, which trio hands to the tasks of a task.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import trio

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from llama_orch.telemetry.tracing.span_queue import SpanQueue

Value = str | bool | int | float
Attributes = Mapping[str, Value]
Kind = Literal["internal", "server", "client"]
Loss = Literal["queue_full", "refused", "stopped"]
"""Why a span was not exported."""

active: "ContextVar[Tracer | None]" = ContextVar("tracer", default=None)
current: "ContextVar[Span | None]" = ContextVar("span", default=None)
"""The span that a new one becomes a child of."""


class Tracer:
    """Starts spans. Owned by `provider.exporting`, which also exports those that have ended."""

    def __init__(self, provider: "TracerProvider", queue: "SpanQueue") -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        from llama_orch import VERSION

        self.queue = queue
        self._trace = trace
        self._root = Context()
        self._tracer = provider.get_tracer("llama-orch", VERSION)
        self._propagator = TraceContextTextMapPropagator()
        self._kinds = {kind.name.lower(): kind for kind in trace.SpanKind}

    def start(
        self,
        name: str,
        parent: "Span | Context | None",
        attributes: Attributes | None = None,
        *,
        kind: Kind = "internal",
        start_ns: int | None = None,
    ) -> "Span":
        """Start a span; a root without `parent`. `start_ns` is in nanoseconds since the epoch, if it began earlier.

        The span may be one that does not record (`is_recording`), by the sampler's decision.
        """
        context = self._root if parent is None else parent
        if isinstance(context, self._trace.Span):
            context = self._trace.set_span_in_context(context, self._root)
        return self._tracer.start_span(
            name,
            context=context,
            kind=self._kinds[kind],
            attributes=attributes,
            start_time=start_ns,
            record_exception=False,
            set_status_on_exception=False,
        )

    def remote(self, headers: Mapping[str, str]) -> "Context | None":
        """Return the caller's span as the headers traceparent and tracestate name it; None if they name none."""
        if "traceparent" not in headers:
            return None
        return self._propagator.extract(headers, context=self._root)

    def headers(self, span: "Span") -> dict[str, str]:
        """Return the headers that make the receiver's spans children of `span`."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span, self._root))
        return carrier


def start_ns(span: "Span") -> int | None:
    """Return when `span` began, in nanoseconds since the epoch; None if it does not record."""
    began: int | None = getattr(span, "start_time", None)
    return began


def fail(span: "Span", reason: str) -> None:
    """Mark `span` as failed. `reason` is a short constant, never a message: an engine's may quote the prompt."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", reason)
    span.set_status(Status(StatusCode.ERROR))


@contextmanager
def step(
    name: str, attributes: Attributes | None = None, *, kind: Kind = "internal", root: bool = False
) -> "Iterator[Span | None]":
    """Make the block a span, and its spans children of it. It fails with the type of the exception that leaves it.

    Yields None without traces, and without a current span unless the step may be the `root` of a trace.
    """
    tracer, parent = active.get(), current.get()
    if tracer is None or (parent is None and not root):
        yield None
        return
    span = tracer.start(name, parent, attributes, kind=kind)
    before = current.set(span)
    try:
        yield span
    except trio.Cancelled:
        span.set_attribute("llama_orch.cancelled", True)
        raise
    except BaseException as error:
        fail(span, type(error).__name__)
        raise
    finally:
        current.reset(before)
        span.end()


def outgoing(span: "Span | None", otherwise: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of a request that `span` makes; `otherwise` without traces."""
    tracer = active.get()
    return otherwise if tracer is None or span is None else tracer.headers(span)


def given(attributes: Mapping[str, Any]) -> dict[str, Value]:
    """Return the attributes that are known: not None."""
    return {name: value for name, value in attributes.items() if value is not None}
