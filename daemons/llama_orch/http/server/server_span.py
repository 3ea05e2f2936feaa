"""The span of one request to this daemon, by the semantic conventions of OpenTelemetry for HTTP servers."""

from collections.abc import Mapping

from llama_orch.telemetry import correlation
from llama_orch.telemetry.tracing.spans import Tracer, current, fail, given

TRACE_HEADERS = ("traceparent", "tracestate")


class ServerSpan:
    """A child of the caller's span, if the request names one. Until `end` it is the current span, and the trace that is
    passed on."""

    def __init__(self, tracer: Tracer, route: str, request: Mapping[str, str], headers: Mapping[str, str]) -> None:
        attributes = {
            **request,
            "http.route": route,
            "client.address": correlation.peer.get(),
            "user_agent.original": headers.get("user-agent"),
            "llama_orch.correlation_id": correlation.current.get(),
        }
        trace = correlation.traceparent.get()  # None if the header is malformed
        caller = {name: headers[name] for name in TRACE_HEADERS if name in headers} if trace else {}
        self._span = tracer.start(
            f"{request['http.request.method']} {route}", tracer.remote(caller), given(attributes), kind="server"
        )
        self._before = current.get()
        current.set(self._span)
        correlation.traceparent.set(tracer.headers(self._span)["traceparent"])

    def end(self, status: int | None, *, complete: bool) -> None:
        """End the span of a request that was answered with `status`, or not at all."""
        current.set(self._before)
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if not complete:
            fail(self._span, "incomplete_answer")
        elif status is not None and status >= 500:
            fail(self._span, str(status))
        self._span.end()
