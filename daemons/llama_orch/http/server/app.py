"""The base Quart application of all daemons: /health, /ready, /metrics, and one format of errors."""

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
"""Level 1 compresses the series of a thousand nodes to an eighth. Level 9 saves another tenth and takes ten times as
long."""
PATH_LIMIT = 128
"""Characters of a request path in an error message."""
DOCUMENT_LIMIT = 1 << 20
"""Bytes of a body outside of the hot paths, where bodies hold no prompts or answers."""


def create_app(name: str, readiness: Readiness, metrics: CollectorRegistry) -> QuartTrio:
    """Return an application with the routes of all daemons. `readiness` lists the reasons for not being ready."""
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
    """Return an application that serves only /metrics, for the metrics port."""
    app = QuartTrio(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = DOCUMENT_LIMIT
    app.config["RESPONSE_TIMEOUT"] = None  # a stream may last as long as its client; the relay has its own limits
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_error_handler(ApiError, _api_error)
    app.register_error_handler(HTTPException, partial(_http_error, name))
    disable_created_metrics()  # type: ignore[no-untyped-call]

    @app.get("/metrics")
    async def show_metrics() -> Response:
        compressed = request.accept_encodings.quality("gzip") > 0
        # in a thread: the series of a thousand nodes take a quarter of a second
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
    """Return the series in the format that `accept` prefers, and its content type."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # an invalid version parameter
        encode, content_type = choose_encoder("")
    body = encode(metrics)
    return gzip.compress(body, compresslevel=GZIP_LEVEL) if compressed else body, content_type


def add_hot(app: QuartTrio, hot: HotRoutes) -> None:
    """Register the hot paths with `app`, so that its 405 and OPTIONS answers name all methods of a path.

    Hot paths for ANY method never reach `app`.
    """
    for method, pattern in hot.declared:
        if method == ANY:
            continue
        path = pattern.replace("{", "<").replace("}", ">")
        app.add_url_rule(path, f"{method} {pattern}", _unreachable, methods=[method])


async def _unreachable(**_variables: str) -> Response:
    raise RuntimeError("the gate passed a hot path to Quart")


async def _api_error(error: ApiError) -> Response:
    reply = error_answer(error, request.path, current.get(), anthropic=ANTHROPIC_VERSION in request.headers)
    response = jsonify(reply.body)
    response.status_code = reply.status
    for name, value in reply.headers:
        response.headers[name] = value
    return response


async def _http_error(name: str, error: HTTPException) -> Response:
    """Answer what Quart itself refuses (unknown path, wrong method) in the common error format."""
    status, path = error.code or 500, request.path[:PATH_LIMIT]
    if status == 404:
        body = ErrorBody(code=ErrorCode.NOT_FOUND, message=f"{name} has no path {path}", reason=NO_SUCH_PATH)
        return await _api_error(ApiError(status, body.model_copy(update={"hint": f"See {name}(8)."})))
    if status == 413:
        return await _api_error(too_long(current_app.config["MAX_CONTENT_LENGTH"]))
    headers = tuple(error.get_headers()) if status == 405 else ()
    allow = tuple((field, value) for field, value in headers if field.lower() == "allow")
    code = ErrorCode.INTERNAL if status == 500 else ErrorCode.INVALID_PARAMS
    message = f"method {request.method} is not allowed for {path}" if status == 405 else error.name.lower()
    hint = f"Allowed: {allow[0][1]}." if allow else None
    return await _api_error(ApiError(status, ErrorBody(code=code, message=message, hint=hint), allow))
