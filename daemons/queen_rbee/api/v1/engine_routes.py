"""Declaration of /v1 routes that an engine answers."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import JsonValue

from llama_orch.contracts.tasks import DAY_MS
from llama_orch.http.server.routes import (
    JSON,
    Content,
    Deferred,
    GateHandler,
    Parameter,
    Reply,
    RequestBody,
    gate_route,
)
from queen_rbee.api.parameters import BUDGET_HEADERS, EVENT_STREAM, EXAMPLE_SESSION_ID, PLACE_HEADERS, PREFER, UUID

SCHEMAS = "queen_rbee.api.openapi.schemas"
TASK_PARAMETERS = (
    Parameter("X-Session-Id", "The session that the request belongs to.", UUID, "header", EXAMPLE_SESSION_ID),
    Parameter(
        "X-Priority",
        "Interactive requests are served first.",
        {"type": "string", "enum": ["interactive", "batch"], "default": "interactive"},
        "header",
    ),
    Parameter(
        "X-Deadline-Ms",
        "Milliseconds from admission after which the task fails.",
        {"type": "integer", "minimum": 1, "maximum": 7 * DAY_MS},
        "header",
        60_000,
    ),
    PREFER,
)
ANSWER_HEADERS = ("X-Queue-Position", "Preference-Applied", *PLACE_HEADERS, *BUDGET_HEADERS)
STREAMING = (
    "With `stream: true` the answer is sent as server-sent events. "
    "If it fails midway, the last event is an error object."
)
DISCONNECTING = "Closing the connection cancels the task."


def engine_route(
    path: str,
    summary: str,
    body: type | Deferred,
    examples: Mapping[str, JsonValue],
    answer: str,
    events: str = "",
    *,
    errors: tuple[int, ...] = (),
    name: str = "",
    links: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[GateHandler], GateHandler]:
    """Declare a POST route that passes its request on to an engine.

    `answer` and `events` name schemas in `openapi.schemas`, which is imported only for the API description: of the
    document, and of each event of the stream. Without `events` the route does not stream. `links` as in Reply.
    """
    content: dict[str, Content] = {JSON: Deferred(SCHEMAS, answer)}
    if events:
        content[EVENT_STREAM] = Deferred(SCHEMAS, events)
    return gate_route(
        "POST",
        path,
        summary,
        {200: Reply("The answer.", content, ANSWER_HEADERS, links)},
        name=name,
        body=RequestBody(body, examples),
        parameters=TASK_PARAMETERS,
        traced=True,
        errors=(404, 409, 429, 502, 503, 504, *errors),
        description=f"{STREAMING} {DISCONNECTING}" if events else DISCONNECTING,
    )


def with_streamed(example: Mapping[str, JsonValue], **options: Any) -> dict[str, JsonValue]:
    """Return two examples of a body: for a document and for a stream, which also has `options`."""
    return {"whole": dict(example), "streamed": {**example, "stream": True, **options}}
