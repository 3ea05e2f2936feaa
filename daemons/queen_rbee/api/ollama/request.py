"""Requests of Ollama's API, and messages for their problems.

As in https://github.com/ollama/ollama/blob/main/docs/api.md and in the packages of pip and npm. Unknown fields are
ignored, fields that would change the answer and that no engine has are refused.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    FailFast,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.openai import MAX_MESSAGES, MAX_TEXTS, MAX_TOOLS
from llama_orch.contracts.validation import dotted, invalid_fields
from llama_orch.http.server.bodies import invalid
from queen_rbee.api.ollama.durations import keep_alive_of
from queen_rbee.api.ollama.options import Options
from queen_rbee.api.v1.chat.fields import Lenient, Object

MAX_IMAGES = 64

Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
KeepAlive = Annotated[
    float | int,
    BeforeValidator(
        lambda given: keep_alive_of(given) if _is_duration(given) else given, json_schema_input_type=str | float
    ),
]
Base64 = Annotated[str, StringConstraints(min_length=1, pattern=r"^[A-Za-z0-9+/=]+$")]
Images = Annotated[list[Base64] | None, Field(max_length=MAX_IMAGES), FailFast()]
Alternatives = Annotated[int, Field(ge=0, le=20)]
Think = bool | Literal["low", "medium", "high", "max"]


def _is_duration(given: object) -> bool:
    return isinstance(given, str | int | float) and not isinstance(given, bool)


def _no_options_is_none(given: object) -> object:
    return None if given == {} else given


class ModelRequest(Lenient):
    """A request that names a model, as `model` or, in older clients and in npm's, as `name`."""

    model: Name

    @model_validator(mode="before")
    @classmethod
    def _name_is_model(cls, given: object) -> object:
        if isinstance(given, dict) and not given.get("model") and given.get("name"):
            return {**given, "model": given["name"]}
        return given


class FunctionCall(Lenient):
    name: Name
    arguments: Object = {}


class ToolCall(Lenient):
    """A call of an earlier turn. `id` is in newer clients."""

    id: Name | None = None
    function: FunctionCall


class Message(Lenient):
    """One turn. A message of the role `tool` answers the call `tool_call_id`, or else one of the tool `tool_name`."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Images = None
    tool_calls: Annotated[list[ToolCall] | None, Field(max_length=MAX_TOOLS), FailFast()] = None
    tool_name: Name | None = None
    tool_call_id: Name | None = None


class Function(Lenient):
    name: Name
    description: str | None = None
    parameters: Object | None = None


class Tool(Lenient):
    """A tool that the client runs."""

    type: Literal["function"] = "function"
    function: Function


class GenerationFields(ModelRequest):
    """The fields of both generating requests. `stream` is true unless it is false."""

    options: Annotated[Options | None, BeforeValidator(_no_options_is_none)] = None
    format: Literal["", "json"] | Object | None = None
    keep_alive: KeepAlive | None = None
    stream: bool | None = None
    think: Think | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None

    @property
    def streamed(self) -> bool:
        return self.stream is not False


class ChatRequest(GenerationFields):
    """POST /api/chat. Without messages, the model is loaded, or unloaded if `keep_alive` is 0."""

    messages: Annotated[list[Message] | None, Field(max_length=MAX_MESSAGES), FailFast()] = None
    tools: Annotated[list[Tool] | None, Field(max_length=MAX_TOOLS), FailFast()] = None

    @property
    def empty(self) -> bool:
        return not self.messages


REFUSED = {
    "template": "a template per request is not supported: the model's own is used; raw has none",
    "context": "is not supported: send the conversation to /api/chat",
    "suffix": "this model does not support insert: no engine is asked to fill in text",
    "width": "images are not generated",
    "height": "images are not generated",
    "steps": "images are not generated",
}
"""Fields of /api/generate that would change the answer, and why each is refused."""


class GenerateRequest(GenerationFields):
    """POST /api/generate. Without a prompt, the model is loaded, or unloaded if `keep_alive` is 0."""

    prompt: str | None = None
    system: str | None = None
    images: Images = None
    raw: bool | None = None
    template: JsonValue = None
    context: JsonValue = None
    suffix: JsonValue = None
    width: JsonValue = None
    height: JsonValue = None
    steps: JsonValue = None

    @model_validator(mode="after")
    def _refuse(self) -> "GenerateRequest":
        for name, reason in REFUSED.items():
            if getattr(self, name):
                raise ValueError(f"{name}: {reason}")
        if self.raw:
            for name in ("system", "images", "format", "think", "logprobs", "top_logprobs"):
                if getattr(self, name):
                    raise ValueError(f"raw: does not support {name}")
        return self

    @property
    def empty(self) -> bool:
        return not self.prompt and not self.images


def _texts(given: object) -> object:
    """Convert a single text to a list; an empty one is none, which only loads the model."""
    if given is None or given == "":
        return []
    return [given] if isinstance(given, str) else given


def _few(texts: list[str]) -> list[str]:
    if len(texts) > MAX_TEXTS:
        raise ValueError(f"has {len(texts)} texts (at most {MAX_TEXTS} are allowed): send several requests")
    return texts


Texts = Annotated[
    list[str],
    FailFast(),
    AfterValidator(_few),
    BeforeValidator(_texts, json_schema_input_type=str | list[str] | None),
]


class EmbedRequest(ModelRequest):
    """POST /api/embed. Without input, the model is loaded. `truncate` has no effect: too long a text is refused."""

    input: Texts = []
    dimensions: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    keep_alive: KeepAlive | None = None


class EmbeddingsRequest(ModelRequest):
    """POST /api/embeddings, which /api/embed supersedes."""

    prompt: str = ""
    keep_alive: KeepAlive | None = None


class ShowRequest(ModelRequest):
    """POST /api/show."""


class PullRequest(ModelRequest):
    """POST /api/pull."""

    stream: bool | None = None


class DeleteRequest(ModelRequest):
    """DELETE /api/delete."""


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], body: bytes | bytearray) -> Model:
    """Parse a request body. Raises ApiError 400 that names each invalid field, such as `messages.0.role`."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        problems = [(dotted(each.location, ""), each.text) for each in invalid_fields(error)]
        raise ApiError(400, invalid((field or "body", text) for field, text in map(_named, problems))) from error


def _named(problem: tuple[str, str]) -> tuple[str, str]:
    """Move the field that a validator names in its text to where it belongs."""
    path, text = problem
    field, separator, rest = text.partition(": ")
    if separator and field.isidentifier():
        return f"{path}.{field}".lstrip("."), rest
    return problem
