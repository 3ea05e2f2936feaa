"""Send spans to a collector: OTLP over gRPC, or as protobuf over HTTP.

Both are one POST of one protobuf message, over HTTP/2 with a prefix of five bytes or over HTTP/1.1. grpcio would
quadruple the size of the packages for that (15 MB compressed for three versions of Python) and take 10 MB more memory.
"""

import re
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import httpx2
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan

from llama_orch import VERSION
from llama_orch.telemetry.tracing.options import TraceOptions

GRPC_PATH = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
HTTP_PATH = "/v1/traces"
GRPC_PREFIX = struct.Struct(">BI")
"""Whether the message is compressed, and its length in bytes."""
ANSWER_LIMIT = 64 << 10
REASON_LIMIT = 200
RETRIABLE_STATUSES = frozenset({429, 502, 503, 504})
RETRIABLE_CODES = frozenset({1, 4, 8, 10, 11, 14, 15})
"""Of gRPC: cancelled, deadline exceeded, resource exhausted, aborted, out of range, unavailable, data loss. This and
RETRIABLE_STATUSES: the OTLP specification, Failures."""
CODES = {3: "INVALID_ARGUMENT", 7: "PERMISSION_DENIED", 12: "UNIMPLEMENTED", 14: "UNAVAILABLE", 16: "UNAUTHENTICATED"}


class ExportFailure(Exception):
    """The collector does not have the spans. `retriable`: it may take them later."""

    def __init__(self, reason: str, *, retriable: bool) -> None:
        super().__init__(reason)
        self.retriable = retriable


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Collector:
    """A client of one collector. For one thread at a time; `close` it."""

    def __init__(self, options: TraceOptions) -> None:
        self._grpc = options.protocol == "grpc"
        self._timeout_s = options.timeout_s
        parts = urlsplit(options.endpoint)
        self._url = f"{parts.scheme}://{parts.netloc}{GRPC_PATH}" if self._grpc else options.endpoint + HTTP_PATH
        own = {"content-type": "application/x-protobuf"}
        if self._grpc:
            own = {"content-type": "application/grpc", "te": "trailers", "grpc-timeout": f"{options.timeout_s:.0f}S"}
        self._client = httpx2.Client(
            http1=not self._grpc,
            http2=self._grpc,
            verify=_tls(options) if parts.scheme == "https" else False,
            timeout=options.timeout_s,
            trust_env=False,
            headers={**options.headers, **own, "user-agent": f"llama-orch/{VERSION}"},
        )

    def close(self) -> None:
        self._client.close()

    def export(self, spans: Sequence[ReadableSpan]) -> int:
        """Send `spans`; return how many of them the collector refused. Blocks; raises ExportFailure."""
        message = encode_spans(spans).SerializeToString()
        if self._grpc:
            return _refused(_message_of(self._post(GRPC_PREFIX.pack(0, len(message)) + message)))
        return _refused(_document_of(self._post(message)))

    def _post(self, body: bytes) -> Answer:
        """Return the answer; a larger one than ANSWER_LIMIT is cut off."""
        until = time.monotonic() + self._timeout_s
        received = bytearray()
        try:
            with self._client.stream("POST", self._url, content=body) as response:
                for chunk in response.iter_bytes():
                    received += chunk
                    if len(received) > ANSWER_LIMIT or time.monotonic() > until:
                        break
                return Answer(response.status_code, response.headers, bytes(received))
        except httpx2.TimeoutException as error:
            raise ExportFailure(f"no answer within {self._timeout_s:g} s", retriable=True) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ExportFailure(self._explained(error), retriable=True) from error

    def _explained(self, error: Exception) -> str:
        words = _one_line(str(error)) or type(error).__name__
        if isinstance(error, httpx2.ConnectError):
            return words
        other = "http/protobuf" if self._grpc else "grpc"
        return f"{words}; if the collector's protocol is {other}, set OTEL_EXPORTER_OTLP_PROTOCOL={other}"


def _tls(options: TraceOptions) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca)
    if options.cert and options.key:
        context.load_cert_chain(options.cert, options.key, "")
    return context


def _message_of(answer: Answer) -> bytes:
    """Return the message in an answer over gRPC.

    A unary call that fails carries its status in the head: only one that succeeds has a message. So the trailers, which
    httpcore does not hand out, are not needed.
    """
    if answer.status != 200 or not answer.headers.get("content-type", "").startswith("application/grpc"):
        words = f"it does not answer as a gRPC server (status {answer.status})"
        raise ExportFailure(words, retriable=answer.status in RETRIABLE_STATUSES)
    code = answer.headers.get("grpc-status", "0" if len(answer.body) >= GRPC_PREFIX.size else "2")
    if code != "0":
        number = int(code) if code.isascii() and code.isdigit() and len(code) < 3 else 2
        text = _one_line(unquote(answer.headers.get("grpc-message", "")))
        words = f"gRPC status {number} {CODES.get(number, '')}".strip() + (f": {text}" if text else "")
        raise ExportFailure(words, retriable=number in RETRIABLE_CODES)
    return answer.body[GRPC_PREFIX.size :]


def _document_of(answer: Answer) -> bytes:
    if not 200 <= answer.status < 300:
        raise ExportFailure(f"status {answer.status}", retriable=answer.status in RETRIABLE_STATUSES)
    return answer.body if "protobuf" in answer.headers.get("content-type", "") else b""


def _refused(body: bytes) -> int:
    """Return the number of refused spans in a response; 0 if it cannot be parsed."""
    try:
        rejected = ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans
    except DecodeError:
        return 0
    return max(0, int(rejected))


def _one_line(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]+", " ", text).strip()[:REASON_LIMIT]
