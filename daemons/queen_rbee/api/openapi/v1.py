"""The operations of /v1, and the answers in OpenAI's and Anthropic's formats, as far as clients may rely on them.

What engines say beyond that comes through: `OpenAiDocument` allows for more fields.
"""

from typing import Literal

from pydantic import BaseModel, JsonValue

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.openai import Chat, Completions, Embeddings, ModelEntries, ModelEntry, Rerank
from llama_orch.contracts.stream import OpenAiDocument
from llama_orch.contracts.tasks import DAY_MS
from queen_rbee.api.openapi.events import OF_ANTHROPIC, OF_OPENAI
from queen_rbee.api.openapi.headers import BUDGETS, PLACE
from queen_rbee.api.openapi.operation import (
    EVENT_STREAM,
    JSON,
    UUID,
    Answer,
    Body,
    Operation,
    Parameter,
    Schema,
    reading,
)
from queen_rbee.api.v1.messages.request import CountRequest, MessagesRequest


class ChatCompletion(OpenAiDocument):
    """An answer, put together where the engine was asked for a stream."""

    object: Literal["chat.completion"]
    choices: list[OpenAiDocument]


class TextCompletion(OpenAiDocument):
    """Likewise, of a text."""

    object: Literal["text_completion"]
    choices: list[OpenAiDocument]


class EmbeddingList(OpenAiDocument):
    """One embedding for each input."""

    data: list[OpenAiDocument]


class Ranking(OpenAiDocument):
    """The documents by their relevance."""

    results: list[OpenAiDocument]


class MessageUsage(Outbound):
    """Tokens; of the input those that the engine had not in its cache, and those that it had."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class AnthropicMessage(Outbound):
    """A message as Anthropic's clients read it."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, JsonValue]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(Outbound):
    """How long a prompt is."""

    input_tokens: int


A_SESSION = "4f0c6f6e-7d8b-4a52-9a53-0d1f3c1b7a10"
OF_THE_TASK = (
    Parameter("X-Session-Id", "The session that this is a turn of.", UUID, "header", A_SESSION),
    Parameter(
        "X-Priority",
        "Interactive requests go first.",
        {"type": "string", "enum": ["interactive", "batch"], "default": "interactive"},
        "header",
    ),
    Parameter(
        "X-Deadline-Ms",
        "Milliseconds from admission after which there is no answer any more.",
        {"type": "integer", "minimum": 1, "maximum": 7 * DAY_MS},
        "header",
        60_000,
    ),
)
ERRORS = (404, 409, 429, 502, 503, 504)
OF_THE_ANSWER = ("X-Queue-Position", *PLACE, *BUDGETS)
STREAMS = (
    "With `stream: true` the answer comes as server-sent events; an error object is the last where it fails midway."
)
LEAVING = "Who closes the connection cancels the task."


def passed_on(
    path: str,
    name: str,
    summary: str,
    asked: type[BaseModel],
    answer: Body,
    events: Schema | None = None,
    errors: tuple[int, ...] = (),
) -> Operation:
    """An operation that an engine answers; `events` are those of its stream, None where it has none."""
    content = {JSON: answer, **({EVENT_STREAM: events} if events else {})}
    return Operation(
        "POST",
        path,
        name,
        summary,
        {200: Answer("The answer.", content, OF_THE_ANSWER)},
        body=asked,
        parameters=OF_THE_TASK,
        errors=(*ERRORS, *errors),
        about=f"{STREAMS} {LEAVING}" if events else LEAVING,
    )


OPENAI = (
    reading("/v1/models", "list_names", "The names that `model` can have", ModelEntries, model="/data/0/id"),
    reading("/v1/models/{model}", "get_name", "One of them", ModelEntry, errors=(409, 503)),
    passed_on("/v1/chat/completions", "chat", "Answer a conversation", Chat, ChatCompletion, OF_OPENAI),
    passed_on("/v1/completions", "complete", "Go on from a text", Completions, TextCompletion, OF_OPENAI),
    passed_on("/v1/embeddings", "embed", "Embed texts", Embeddings, EmbeddingList),
    passed_on("/v1/rerank", "rerank", "Rank documents by a query", Rerank, Ranking),
    passed_on("/v2/rerank", "rerank_v2", "As POST /v1/rerank", Rerank, Ranking),
    passed_on("/rerank", "rerank_bare", "As POST /v1/rerank", Rerank, Ranking),
)
ANTHROPIC = (
    passed_on(
        "/v1/messages",
        "create_message",
        "Answer a conversation, as Anthropic's clients ask",
        MessagesRequest,
        AnthropicMessage,
        OF_ANTHROPIC,
    ),
    passed_on(
        "/v1/messages/count_tokens",
        "count_tokens",
        "How long a prompt is, as the engine counts it",
        CountRequest,
        TokenCount,
        errors=(501,),
    ),
)
