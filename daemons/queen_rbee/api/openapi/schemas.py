"""Schemas that only the API description needs: answers that engines produce, and the events of streams.

Engines may send more fields than are listed; OpenAiDocument allows them. OpenAPI 3.1 cannot describe the events of a
stream; tools take the schema of a `text/event-stream` as that of each event.
"""

from typing import Literal

from pydantic import BaseModel, JsonValue

from llama_orch.contracts import live
from llama_orch.contracts.base import Outbound
from llama_orch.contracts.stream import EVENTS, OpenAiDocument
from llama_orch.http.server.routes import Schema

EVENT_ID: JsonValue = {"type": "string", "pattern": "^[0-9]+$"}
ANTHROPIC_EVENTS = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "ping",
    "error",
)

RESPONSES_EVENTS = (
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.output_item.done",
    "response.content_part.added",
    "response.content_part.done",
    "response.output_text.delta",
    "response.output_text.done",
    "response.refusal.delta",
    "response.refusal.done",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "error",
)


class ChatCompletion(OpenAiDocument):
    """A chat completion. If the engine was asked for a stream, it is assembled from the chunks."""

    object: Literal["chat.completion"]
    choices: list[OpenAiDocument]


class TextCompletion(OpenAiDocument):
    """A text completion, assembled in the same way."""

    object: Literal["text_completion"]
    choices: list[OpenAiDocument]


class EmbeddingList(OpenAiDocument):
    """One embedding for each input."""

    data: list[OpenAiDocument]


class Ranking(OpenAiDocument):
    """The documents, ordered by relevance."""

    results: list[OpenAiDocument]


class MessageUsage(Outbound):
    """Token counts. `input_tokens` excludes those found in the engine's prefix cache."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class AnthropicMessage(Outbound):
    """A message in Anthropic's format."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, JsonValue]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(Outbound):
    """The length of a prompt in tokens."""

    input_tokens: int


class OpenAiResponse(OpenAiDocument):
    """A response in OpenAI's format. `store` tells whether it can be read and continued later."""

    object: Literal["response"]
    status: Literal["completed", "incomplete"]
    output: list[OpenAiDocument]
    store: bool


class DeletedResponse(Outbound):
    """A response that is no longer stored."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


def _json_in(schema: JsonValue) -> dict[str, JsonValue]:
    """Return the schema of a string that contains JSON."""
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


def _reference(model: type[BaseModel]) -> dict[str, JsonValue]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _task_event(name: str) -> JsonValue:
    return {
        "title": name,
        "type": "object",
        "properties": {"id": EVENT_ID, "event": {"const": name}, "data": _json_in(_reference(EVENTS[name]))},
        "required": ["id", "event", "data"],
    }


TASK_EVENTS: Schema = {"oneOf": [_task_event(name) for name in EVENTS]}
"""Ids increase. A missing id belongs to a narration event that the client did not ask for."""


def _live_event(name: str) -> JsonValue:
    described: dict[str, JsonValue] = {"description": live.SECTIONS[name]} if name in live.SECTIONS else {}
    return {
        "title": f"live {name}",
        **described,
        "type": "object",
        "properties": {"event": {"const": name}, "data": _json_in(_reference(live.EVENTS[name]))},
        "required": ["event", "data"],
    }


LIVE_EVENTS: Schema = {"oneOf": [_live_event(name) for name in live.EVENTS]}
OPENAI_EVENT: Schema = {
    "type": "object",
    "properties": {"data": {"anyOf": [{"const": "[DONE]"}, _json_in(_reference(OpenAiDocument))]}},
    "required": ["data"],
}
RESPONSES_EVENT: Schema = {
    "type": "object",
    "properties": {
        "event": {"enum": [*RESPONSES_EVENTS]},
        "data": _json_in(
            {
                "type": "object",
                "properties": {"type": {"enum": [*RESPONSES_EVENTS]}, "sequence_number": {"type": "integer"}},
                "required": ["type", "sequence_number"],
            }
        ),
    },
    "required": ["event", "data"],
}
ANTHROPIC_EVENT: Schema = {
    "type": "object",
    "properties": {
        "event": {"enum": [*ANTHROPIC_EVENTS]},
        "data": _json_in(
            {"type": "object", "properties": {"type": {"enum": [*ANTHROPIC_EVENTS]}}, "required": ["type"]}
        ),
    },
    "required": ["event", "data"],
}
