"""Server-sent events as schemas: OpenAPI 3.1 has no word of its own for the events of a stream, and tools take the
schema of a `text/event-stream` for that of each event."""

from pydantic import JsonValue

from llama_orch.contracts.stream import EVENTS, OpenAiDocument
from queen_rbee.api.openapi.operation import Schema

IDENTIFIER: JsonValue = {"type": "string", "pattern": "^[0-9]+$"}
DONE = "[DONE]"
ANTHROPIC = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "ping",
    "error",
)


def _holding(schema: JsonValue) -> dict[str, JsonValue]:
    """Data that is JSON."""
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


def _referred(name: str) -> dict[str, JsonValue]:
    return {"$ref": f"#/components/schemas/{name}"}


def _event(name: str) -> JsonValue:
    """The event of a task that is called `name`."""
    data = _holding(_referred(EVENTS[name].__name__))
    return {
        "title": name,
        "type": "object",
        "properties": {"id": IDENTIFIER, "event": {"const": name}, "data": data},
        "required": ["id", "event", "data"],
    }


OF_A_TASK: Schema = {"oneOf": [_event(name) for name in EVENTS]}
"""Ids go up; one that is missing belongs to a narration that was not asked for."""
OF_OPENAI: Schema = {
    "type": "object",
    "properties": {"data": {"anyOf": [{"const": DONE}, _holding(_referred(OpenAiDocument.__name__))]}},
    "required": ["data"],
}
OF_ANTHROPIC: Schema = {
    "type": "object",
    "properties": {
        "event": {"enum": [*ANTHROPIC]},
        "data": _holding({"type": "object", "properties": {"type": {"enum": [*ANTHROPIC]}}, "required": ["type"]}),
    },
    "required": ["event", "data"],
}
ABOUT = (
    "Any number of readers may read at once, each from the start or from behind `Last-Event-ID`. Leaving the stream "
    "does not cancel the task. Comments keep it alive. Nothing follows `end` or `error`."
)
