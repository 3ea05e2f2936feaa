"""Requests of OpenAI's API, as far as routing needs them, and the list of models.

Unknown fields are passed on to the engine. Types are checked where an engine would fail on a wrong one or ignore it;
the engine checks the values.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, Strict, StrictBool, StrictInt, StrictStr

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.engines import Workload
from llama_orch.contracts.keep_alive import KeepAlive

MAX_MESSAGES = 10_000
MAX_TOOLS = 1_000
MAX_TEXTS = 2_048
"""OpenAI's limit. An engine processes as many texts at a time as it has slots."""
MAX_DOCUMENTS = 10_000


def _texts(value: object) -> object:
    if isinstance(value, list) and len(value) > MAX_TEXTS and not isinstance(value[0], int):
        raise ValueError(f"has {len(value)} texts (at most {MAX_TEXTS} are allowed): send several requests")
    if isinstance(value, str) or (isinstance(value, list) and value):
        return value
    raise ValueError("must be a string or a non-empty list")


def _stop(value: object) -> object:
    texts = value if isinstance(value, list) else [value]
    if value is None or all(isinstance(text, str) for text in texts):
        return value
    raise ValueError("must be a string or a list of strings")


Number = Annotated[float, Strict()]
Texts = Annotated[
    object,
    AfterValidator(_texts),
    Field(json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1}]}),
]
Stop = Annotated[
    object,
    AfterValidator(_stop),
    Field(
        json_schema_extra={
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]
        }
    ),
]
Alternatives = Annotated[StrictInt, Field(ge=0, le=100)]
"""Alternative tokens per token. Without a limit an engine returns its whole vocabulary."""
Tokens = Annotated[StrictInt, Field(ge=-1, le=16_777_216)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class ChatMessage(_Part):
    """One message. The engine's template handles its content."""

    role: Annotated[StrictStr, Field(min_length=1)]


class ChatTool(_Part):
    """One tool."""

    type: StrictStr


class StreamOptions(_Part):
    """`include_usage`: send a last chunk with the token counts."""

    include_usage: StrictBool | None = None


class ResponseFormat(_Part):
    """The format of the answer."""

    type: StrictStr


class EndpointRequest(_Part):
    """The fields of all endpoints."""

    model: Annotated[StrictStr, Field(max_length=512)] | None = None
    keep_alive: KeepAlive | None = None


class GenerationRequest(EndpointRequest):
    """The common fields of chat and text completions. -1 tokens means as many as the context allows."""

    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[StrictInt, Field(ge=1, le=128)] | None = None
    seed: StrictInt | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    stop: Stop = None
    response_format: ResponseFormat | None = None


class Chat(GenerationRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES), FailFast()]
    tools: Annotated[list[ChatTool] | None, Field(max_length=MAX_TOOLS), FailFast()] = None
    logprobs: StrictBool | None = None
    top_logprobs: Alternatives | None = None


class Completions(GenerationRequest):
    """POST /v1/completions."""

    prompt: Texts
    logprobs: Alternatives | None = None


class Embeddings(EndpointRequest):
    """POST /v1/embeddings."""

    input: Texts
    encoding_format: Literal["float", "base64"] | None = None


class Rerank(EndpointRequest):
    """POST /v1/rerank, compatible with llama-server and others."""

    query: StrictStr
    documents: Annotated[list[object], Field(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: StrictInt | None = None


class ModelEntry(Outbound):
    """A valid value of `model`.

    `created` is in seconds since the epoch, 0 if unknown. `ready` is whether one of `pools` serves it now. `ctx_max` is
    in tokens per slot. `workloads` are those its engines were started for.
    """

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "llama-orch"
    ready: bool
    pools: list[str]
    ctx_max: int | None = None
    workloads: list[Workload] = []


class ModelEntries(Outbound):
    """GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class AnthropicModel(Outbound):
    """A valid value of `model`. `created_at` is the epoch if unknown; `max_input_tokens` is the context."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: datetime
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None = None


class AnthropicModels(Outbound):
    """A page of GET /v1/models. `first_id` and `last_id` are `before_id` and `after_id` of the adjacent pages."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None
