"""The Quart application every daemon starts from: /health, /ready, /metrics, and errors in one shape."""

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
from llama_orch.http.server.error_shapes import ANTHROPIC_VERSION, error_answer
from llama_orch.http.server.exchange import ANY, HotRoutes
from llama_orch.http.server.receiving import too_long
from llama_orch.telemetry.correlation import current

Readiness = Callable[[], list[str]]
GZIP_LEVEL = 1
"""A thousand nodes' series become an eighth of their size; the highest level would gain a tenth of that and take ten
times as long."""
SHOWN = 128
"""How much of a path is told to who asked for it."""
DOCUMENT_LIMIT = 1 << 20
"""Bytes of a body outside of the hot paths: there nobody sends what people or models have written."""


def create_app(name: str, readiness: Readiness, metrics: CollectorRegistry) -> QuartTrio:
    """An application with the routes all daemons have; `readiness` lists what stands against being ready."""
    app = metrics_app(name, metrics)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> tuple[dict[str, object], int]:
        reasons = readiness()
        return {"ready": not reasons, "reasons": reasons}, 503 if reasons else 200

    return app


def metrics_app(name: str, metrics: CollectorRegistry) -> QuartTrio:
    """An application that serves /metrics alone, for the metrics port."""
    app = QuartTrio(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = DOCUMENT_LIMIT
    app.config["RESPONSE_TIMEOUT"] = None  # a stream lives as long as its client; the relay has its own limits
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_error_handler(ApiError, _api_error)
    app.register_error_handler(HTTPException, partial(_http_error, name))
    disable_created_metrics()  # type: ignore[no-untyped-call]

    @app.get("/metrics")
    async def show_metrics() -> Response:
        compressed = request.accept_encodings.quality("gzip") > 0
        # in a thread: with the series of a thousand nodes it takes a quarter of a second
        body, content_type = await trio.to_thread.run_sync(
            _exposition, metrics, request.headers.get("accept", ""), compressed
        )
        response = Response(body, content_type=content_type)
        response.headers["Vary"] = "Accept, Accept-Encoding"
        if compressed:
            response.headers["Content-Encoding"] = "gzip"
        return response

    return app


def _exposition(metrics: CollectorRegistry, accept: str, compressed: bool) -> tuple[bytes, str]:
    """The series in the format that `accept` prefers, and its content type."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is not one
        encode, content_type = choose_encoder("")
    body = encode(metrics)
    return gzip.compress(body, compresslevel=GZIP_LEVEL) if compressed else body, content_type


def add_hot(app: QuartTrio, hot: HotRoutes) -> None:
    """Let `app` know the paths that the gate serves before it, so that its 405, and its answer to OPTIONS, name all
    methods of a path. A path that is served whatever the method never gets here."""
    for method, pattern in hot.declared:
        if method == ANY:
            continue
        path = pattern.replace("{", "<").replace("}", ">")
        app.add_url_rule(path, f"{method} {pattern}", _served_before, methods=[method])


async def _served_before(**_variables: str) -> Response:
    raise RuntimeError("a hot path has come past the gate")


async def _api_error(error: ApiError) -> Response:
    told = error_answer(error, request.path, current.get(), anthropic=ANTHROPIC_VERSION in request.headers)
    response = jsonify(told.body)
    response.status_code = told.status
    for name, value in told.headers:
        response.headers[name] = value
    return response


async def _http_error(name: str, error: HTTPException) -> Response:
    """What Quart itself refuses (no such path, wrong method), in the shape of all other errors."""
    status, path = error.code or 500, request.path[:SHOWN]
    if status == 404:
        body = ErrorBody(code=ErrorCode.NOT_FOUND, message=f"{name} has no path {path}", reason=NO_SUCH_PATH)
        return await _api_error(ApiError(status, body.model_copy(update={"hint": f"See {name}(8)."})))
    if status == 413:
        return await _api_error(too_long(current_app.config["MAX_CONTENT_LENGTH"]))
    headers = tuple(error.get_headers()) if status == 405 else ()
    allow = tuple((field, value) for field, value in headers if field.lower() == "allow")
    code = ErrorCode.INTERNAL if status == 500 else ErrorCode.INVALID_PARAMS
    message = f"{path} has no {request.method}" if status == 405 else error.name.lower()
    hint = f"Allowed there: {allow[0][1]}." if allow else None
    return await _api_error(ApiError(status, ErrorBody(code=code, message=message, hint=hint), allow))
