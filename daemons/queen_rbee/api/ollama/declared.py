"""Declaration of the routes of Ollama's API."""

from collections.abc import Callable, Mapping

from pydantic import JsonValue

from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.routes import JSON, Deferred, GateHandler, Method, Reply, RequestBody, gate_route
from queen_rbee.api.v1.engine_routes import ANSWER_HEADERS, DISCONNECTING, TASK_PARAMETERS

NDJSON = "application/x-ndjson"
REQUESTS = "queen_rbee.api.ollama.request"
SCHEMAS = "queen_rbee.api.ollama.schemas"
HEADERS = tuple(name for name in ANSWER_HEADERS if name != "X-Queue-Position")
"""An answer that only loads a model has no position in the queue."""
NAME_SHAPE = Shape(values=100, nodes=100)
STREAMING = (
    "Unless `stream` is false, the answer is a stream of JSON objects, one in a line. "
    "If it fails midway, the last line is an error object."
)


def schema(name: str) -> Deferred:
    """Return the model of an answer."""
    return Deferred(SCHEMAS, name)


def engine_route(
    path: str, summary: str, request: str, examples: Mapping[str, JsonValue], answer: str
) -> Callable[[GateHandler], GateHandler]:
    """Declare a POST route that an engine answers. `request` and `answer` name models; one of lines streams."""
    content = {JSON: schema(answer)}
    streams = answer in ("OllamaChat", "OllamaGeneration")
    return gate_route(
        "POST",
        path,
        summary,
        {200: Reply("The answer.", content | ({NDJSON: schema(answer)} if streams else {}), HEADERS)},
        body=RequestBody(Deferred(REQUESTS, request), examples),
        parameters=TASK_PARAMETERS,
        traced=True,
        errors=(404, 409, 429, 502, 503, 504),
        description=f"{STREAMING} {DISCONNECTING}" if streams else DISCONNECTING,
    )


def disk_route(
    method: Method, path: str, summary: str, request: str, examples: Mapping[str, JsonValue], reply: Reply
) -> Callable[[GateHandler], GateHandler]:
    """Declare a route that changes which models are on the disk."""
    return gate_route(
        method,
        path,
        summary,
        {200: reply},
        body=RequestBody(Deferred(REQUESTS, request), examples),
        errors=(404, 409, 429, 503),
        description="On the Unix socket of queen-rbee only, for root and the group llama-orch.",
    )
