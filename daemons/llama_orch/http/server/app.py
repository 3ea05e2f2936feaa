"""The Quart application that every daemon starts from: /health, /ready, /metrics, and errors in one shape."""

import gzip
from collections.abc import Callable
from functools import partial

import trio
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from quart import Response, current_app, jsonify, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from llama_orch.contracts.errors import NO_SUCH_PATH, ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.meta import Liveness, Readiness
from llama_orch.http.server.error_shapes import ANTHROPIC_VERSION, error_answer
from llama_orch.http.server.mounting import json_response, mount
from llama_orch.http.server.receiving import too_long
from llama_orch.http.server.reloading import ConfigurationRoutes
from llama_orch.http.server.routes import Reply, json_reply, route
from llama_orch.telemetry.correlation import current

ReadinessCheck = Callable[[], list[str]]
GZIP_LEVEL = 1
"""Compresses the series of a thousand nodes to an eighth. The highest level saves another tenth and takes ten times as
long."""
PATH_LIMIT = 128
"""Characters of the requested path that an error message repeats."""
DOCUMENT_LIMIT = 1 << 20
"""Bytes of a request body on routes that Quart serves: none of them takes prompts."""


class HealthRoutes:
    """Liveness and readiness. `readiness` returns the reasons against being ready."""

    def __init__(self, readiness: ReadinessCheck) -> None:
        self._readiness = readiness

    @route("GET", "/health", "Check liveness", {200: json_reply("The daemon is alive.", Liveness)}, public=True)
    async def get_health(self) -> Liveness:
        return Liveness(status="ok")

    @route(
        "GET",
        "/ready",
        "Check readiness",
        {200: json_reply("Ready.", Readiness), 503: json_reply("Not ready, with the reasons.", Readiness)},
        public=True,
    )
    async def get_readiness(self) -> Response:
        reasons = self._readiness()
        return json_response(Readiness(ready=not reasons, reasons=reasons), 503 if reasons else 200)


class MetricsRoutes:
    """Prometheus metrics."""

    def __init__(self, metrics: CollectorRegistry) -> None:
        self._metrics = metrics

    @route(
        "GET", "/metrics", "Get metrics", {200: Reply("Prometheus text format.", {"text/plain": {"type": "string"}})}
    )
    async def get_metrics(self) -> Response:
        compressed = request.accept_encodings.quality("gzip") > 0
        # in a thread: the series of a thousand nodes take a quarter of a second
        body, content_type = await trio.to_thread.run_sync(
            _exposition, self._metrics, request.headers.get("accept", ""), compressed
        )
        response = Response(body, content_type=content_type)
        response.headers["Vary"] = "Accept, Accept-Encoding"
        if compressed:
            response.headers["Content-Encoding"] = "gzip"
        return response


GROUPS = (HealthRoutes, MetricsRoutes, ConfigurationRoutes)
"""The routes that every daemon has."""


def create_app(name: str, readiness: ReadinessCheck, metrics: CollectorRegistry) -> QuartTrio:
    """Create an application with the routes of every daemon; `readiness` returns the reasons against being ready."""
    app = metrics_app(name, metrics)
    mount(app, None, HealthRoutes(readiness))
    return app


def metrics_app(name: str, metrics: CollectorRegistry) -> QuartTrio:
    """Create an application that serves /metrics alone, for the metrics port."""
    app = QuartTrio(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = DOCUMENT_LIMIT
    app.config["RESPONSE_TIMEOUT"] = None  # a stream lives as long as its client; the relay has its own limits
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_error_handler(ApiError, _api_error)
    app.register_error_handler(HTTPException, partial(_http_error, name))
    disable_created_metrics()  # type: ignore[no-untyped-call]
    mount(app, None, MetricsRoutes(metrics))
    return app


def _exposition(metrics: CollectorRegistry, accept: str, compressed: bool) -> tuple[bytes, str]:
    """Encode the series in the format that `accept` prefers; return the body and its content type."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # an invalid version parameter
        encode, content_type = choose_encoder("")
    body = encode(metrics)
    return gzip.compress(body, compresslevel=GZIP_LEVEL) if compressed else body, content_type


async def _api_error(error: ApiError) -> Response:
    answer = error_answer(error, request.path, current.get(), anthropic=ANTHROPIC_VERSION in request.headers)
    response = jsonify(answer.body)
    response.status_code = answer.status
    for name, value in answer.headers:
        response.headers[name] = value
    return response


async def _http_error(name: str, error: HTTPException) -> Response:
    """Send errors of Quart's own (unknown path, wrong method) in the shape of all other errors."""
    status, path = error.code or 500, request.path[:PATH_LIMIT]
    if status == 404:
        body = ErrorBody(code=ErrorCode.NOT_FOUND, message=f"{name} has no path {path}", reason=NO_SUCH_PATH)
        return await _api_error(ApiError(status, body.model_copy(update={"hint": f"See {name}(8)."})))
    if status == 413:
        return await _api_error(too_long(current_app.config["MAX_CONTENT_LENGTH"]))
    headers = tuple(error.get_headers()) if status == 405 else ()
    allow = tuple((field, value) for field, value in headers if field.lower() == "allow")
    code = ErrorCode.INTERNAL if status == 500 else ErrorCode.INVALID_PARAMS
    message = f"{path} does not support {request.method}" if status == 405 else error.name.lower()
    hint = f"Allowed methods: {allow[0][1]}." if allow else None
    return await _api_error(ApiError(status, ErrorBody(code=code, message=message, hint=hint), allow))
