"""What POST /v1/messages and its count_tokens are asked: the models, and each problem of a body in words."""

from collections.abc import Iterator
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    FailFast,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.openai import MAX_MESSAGES, MAX_TOOLS
from llama_orch.contracts.validation import InvalidField, dotted, invalid_fields
from llama_orch.http.server.bodies import invalid
from queen_rbee.api.v1.messages.blocks import NOT_HERE, WRITTEN_BY, Blocks, Lenient, Name, Object, Texts

MOST_TOKENS = 16_777_216
BLOCKS, SOURCE = "content", "source"

StopText = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Message(Lenient):
    """One turn, or, with the role `system`, an instruction in between."""

    role: Literal["user", "assistant", "system"]
    content: Blocks

    @model_validator(mode="after")
    def _fitting(self) -> "Message":
        for index, block in enumerate(self.content):
            if block.type not in WRITTEN_BY[self.role]:
                raise ValueError(f"content.{index}: a message of role {self.role} has no {block.type} blocks")
        if not self.content and self.role != "assistant":
            raise ValueError("content: must not be empty")
        return self


class Tool(Lenient):
    """A tool that the client runs."""

    name: Name
    description: str | None = None
    input_schema: Object

    @model_validator(mode="before")
    @classmethod
    def _ours(cls, given: object) -> object:
        kind = given.get("type") if isinstance(given, dict) else None
        if kind not in (None, "custom"):
            advice = "describe it as a custom tool, with input_schema, and run it at the client's side"
            raise ValueError(f"type: {str(kind)[:64]} is a tool of Anthropic's own, not to be had here: {advice}")
        return given


class ToolChoice(Lenient):
    """Whether tools may or must be used."""

    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingWish(Lenient):
    """Whether to think first; kinds that are not known here leave it to the model."""

    type: Name
    budget_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    display: str | None = None


class OutputFormat(Lenient):
    """The schema that the answer follows."""

    type: Literal["json_schema"]
    schema_: Object = Field(alias="schema")


class OutputConfig(Lenient):
    """How the answer shall be."""

    effort: Name | None = None
    format: OutputFormat | None = None


def _some(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """pydantic's own `min_length` would count the valid ones."""
    if not messages:
        raise ValueError("must not be empty")
    return messages


class CountRequest(Lenient):
    """A prompt whose tokens are counted: all that a request has in common with one for an answer."""

    model: Name
    messages: Annotated[
        tuple[Message, ...],
        Field(max_length=MAX_MESSAGES, json_schema_extra={"minItems": 1}),
        FailFast(),
        AfterValidator(_some),
    ]
    system: Texts = ()
    tools: Annotated[tuple[Tool, ...] | None, Field(max_length=MAX_TOOLS), FailFast()] = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingWish | None = None
    output_config: OutputConfig | None = None

    @model_validator(mode="after")
    def _choosable(self) -> "CountRequest":
        choice = self.tool_choice
        if choice is None or choice.type not in ("any", "tool"):
            return self
        if not self.tools:
            raise ValueError(f"tool_choice.type: {choice.type} needs `tools`")
        if choice.type == "tool" and choice.name not in {tool.name for tool in self.tools}:
            raise ValueError("tool_choice.name: must be the name of one of `tools`")
        return self


class MessagesRequest(CountRequest):
    """A message to be answered. Lengths are in tokens."""

    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    stop_sequences: Annotated[tuple[StopText, ...] | None, Field(max_length=256), FailFast()] = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    stream: bool = False

    @field_validator("stream", mode="before", json_schema_input_type=bool | None)
    @classmethod
    def _null_is_no(cls, given: object) -> object:
        return False if given is None else given


Model = TypeVar("Model", bound=BaseModel)


def parsed(model: type[Model], body: bytes | bytearray) -> Model:
    """`body` as `model`. Raises ApiError 400 that names each wrong field, as `messages.0.content.1.text`."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise ApiError(400, invalid(_problem(each) for each in invalid_fields(error))) from error


def _problem(found: InvalidField) -> tuple[str, str]:
    """pydantic's words for one field, in ours: (field, what is wrong with it)."""
    where, words = dotted(tuple(_fields(found.location)), ""), found.text
    if found.kind == "union_tag_invalid":
        words = _of_type(str(found.context["tag"]))
        where = f"{where}.type"
    elif found.kind == "union_tag_not_found":
        where, words = f"{where}.type", "is required"
    inner, separator, rest = words.partition(": ")
    if separator and found.kind == "value_error":  # the validators above name the field themselves
        where, words = f"{where}.{inner}".lstrip("."), rest
    return where or "body", words


def _fields(location: tuple[int | str, ...]) -> Iterator[int | str]:
    """`location` without the names of types that pydantic puts where it chose one of several."""
    for index, part in enumerate(location):
        before = location[max(0, index - 2) : index]
        chosen = before[-1:] == (SOURCE,) or (len(before) == 2 and before[0] == BLOCKS and isinstance(before[1], int))
        if not chosen:
            yield part


def _of_type(tag: str) -> str:
    """What to say of a block, or of an image's source, of type `tag`."""
    return NOT_HERE.get(tag, f"{tag[:64]} is not known here")
