"""What the answers of collectors mean, and the requests that they get."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from llama_orch.telemetry.tracing.options import Protocol, TraceOptions
from llama_orch.telemetry.tracing.otlp import GRPC_PREFIX, Answer, Collector, ExportFailure, _message_of

GRPC = {"content-type": "application/grpc"}
PARTLY = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=2)).SerializeToString()
EMPTY = GRPC_PREFIX.pack(0, 0)


class Received:
    path = ""
    headers: Mapping[str, str] = {}
    body = b""


@contextmanager
def web_collector(status: int, body: bytes = b"", content_type: str = "application/x-protobuf") -> Iterator[str]:
    """Run a collector for HTTP that answers every request so; yield its URL. `Received` has the last request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            Received.path, Received.headers = self.path, {name.lower(): value for name, value in self.headers.items()}
            Received.body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def export(url: str, protocol: Protocol = "http/protobuf", **headers: str) -> int:
    """Export one span."""
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("work")
    span.end()
    assert isinstance(span, ReadableSpan)
    collector = Collector(TraceOptions(url, "test", protocol, headers, timeout_s=5))
    try:
        return collector.export([span])
    finally:
        collector.close()


def test_spans_are_posted_with_the_configured_headers() -> None:
    with web_collector(200) as url:
        assert export(f"{url}/prefix", authorization="Bearer abc") == 0
    assert Received.path == "/prefix/v1/traces"
    assert Received.headers["authorization"] == "Bearer abc"
    assert Received.headers["content-type"] == "application/x-protobuf"
    request = ExportTraceServiceRequest.FromString(Received.body)
    assert request.resource_spans[0].scope_spans[0].spans[0].name == "work"


def test_partial_success_counts_the_refused_spans() -> None:
    with web_collector(200, PARTLY) as url:
        assert export(url) == 2


def test_answer_that_cannot_be_parsed_counts_as_success() -> None:
    with web_collector(200, b"\xff\xff\xff") as url:
        assert export(url) == 0


@pytest.mark.parametrize(("status", "retriable"), [(400, False), (401, False), (404, False), (429, True), (503, True)])
def test_http_status_decides_whether_spans_are_sent_again(status: int, retriable: bool) -> None:
    with web_collector(status) as url, pytest.raises(ExportFailure, match=f"status {status}") as caught:
        export(url)
    assert caught.value.retriable is retriable


def test_grpc_to_an_http_collector_says_what_to_set() -> None:
    with web_collector(200) as url, pytest.raises(ExportFailure, match="OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"):
        export(url, "grpc")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid:4317", "https://127.0.0.1:1"])
def test_unreachable_collector_is_a_retriable_failure(protocol: Protocol, url: str) -> None:
    with pytest.raises(ExportFailure) as caught:
        export(url, protocol)
    assert caught.value.retriable


@pytest.mark.parametrize(
    ("answer", "words", "retriable"),
    [
        (
            Answer(200, GRPC | {"grpc-status": "16", "grpc-message": "bad%20token"}, b""),
            "UNAUTHENTICATED: bad",
            False,
        ),
        (Answer(200, GRPC | {"grpc-status": "14"}, b""), "14 UNAVAILABLE", True),
        (Answer(200, GRPC | {"grpc-status": "8"}, b""), "status 8", True),
        (Answer(200, GRPC | {"grpc-status": "x" * 999}, b""), "status 2", False),
        (Answer(200, GRPC, b""), "status 2", False),
        (Answer(200, {"content-type": "text/html"}, b"<html>"), "not answer as a gRPC server", False),
        (Answer(503, {"content-type": "text/plain"}, b""), "not answer as a gRPC server", True),
    ],
)
def test_grpc_status_decides_whether_spans_are_sent_again(answer: Answer, words: str, retriable: bool) -> None:
    with pytest.raises(ExportFailure, match=words) as caught:
        _message_of(answer)
    assert caught.value.retriable is retriable


def test_grpc_message_is_read_without_its_prefix() -> None:
    assert _message_of(Answer(200, GRPC, EMPTY)) == b""
    assert _message_of(Answer(200, GRPC, GRPC_PREFIX.pack(0, len(PARTLY)) + PARTLY)) == PARTLY


def test_reason_of_a_collector_is_one_short_line() -> None:
    with pytest.raises(ExportFailure) as caught:
        _message_of(Answer(200, GRPC | {"grpc-status": "3", "grpc-message": "a%0Ab" + "c" * 999}, b""))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 260
