"""Request bodies of POST /v1/messages and /v1/messages/count_tokens, and messages for their problems."""

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
from queen_rbee.api.v1.chat.fields import MAX_TOKENS, Lenient, Name, Object
from queen_rbee.api.v1.messages.blocks import BLOCKS_OF_ROLE, UNSUPPORTED, Blocks, Texts

StopText = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Message(Lenient):
    """One turn or, with the role `system`, an instruction between turns."""

    role: Literal["user", "assistant", "system"]
    content: Blocks

    @model_validator(mode="after")
    def _check_content(self) -> "Message":
        for index, block in enumerate(self.content):
            if block.type not in BLOCKS_OF_ROLE[self.role]:
                raise ValueError(f"content.{index}: a message of role {self.role} must not have {block.type} blocks")
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
    def _refuse_server_tools(cls, given: object) -> object:
        kind = given.get("type") if isinstance(given, dict) else None
        if kind not in (None, "custom"):
            advice = "declare a custom tool with input_schema and run it in the client"
            raise ValueError(f"type: {str(kind)[:64]} is a tool that only Anthropic's service runs: {advice}")
        return given


class ToolChoice(Lenient):
    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingWish(Lenient):
    """Whether to think first. With an unknown type the model decides."""

    type: Name
    budget_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    display: str | None = None


class OutputFormat(Lenient):
    type: Literal["json_schema"]
    schema_: Object = Field(alias="schema")


class OutputConfig(Lenient):
    effort: Name | None = None
    format: OutputFormat | None = None


def _not_empty(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    # pydantic's min_length would count only the valid messages
    if not messages:
        raise ValueError("must not be empty")
    return messages


class CountRequest(Lenient):
    """A prompt whose tokens are counted. Also the fields that every request for a message has."""

    model: Name
    messages: Annotated[
        tuple[Message, ...],
        Field(max_length=MAX_MESSAGES, json_schema_extra={"minItems": 1}),
        FailFast(),
        AfterValidator(_not_empty),
    ]
    system: Texts = ()
    tools: Annotated[tuple[Tool, ...] | None, Field(max_length=MAX_TOOLS), FailFast()] = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingWish | None = None
    output_config: OutputConfig | None = None

    @model_validator(mode="after")
    def _check_tool_choice(self) -> "CountRequest":
        choice = self.tool_choice
        if choice is None or choice.type not in ("any", "tool"):
            return self
        if not self.tools:
            raise ValueError(f"tool_choice.type: {choice.type} requires `tools`")
        if choice.type == "tool" and choice.name not in {tool.name for tool in self.tools}:
            raise ValueError("tool_choice.name: must be the name of one of `tools`")
        return self


class MessagesRequest(CountRequest):
    """A request for a message."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    stop_sequences: Annotated[tuple[StopText, ...] | None, Field(max_length=256), FailFast()] = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    stream: bool = False

    @field_validator("stream", mode="before", json_schema_input_type=bool | None)
    @classmethod
    def _null_is_false(cls, given: object) -> object:
        return False if given is None else given


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], body: bytes | bytearray) -> Model:
    """Parse a request body. Raises ApiError 400 that names each invalid field, such as `messages.0.content.1.text`."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise ApiError(400, invalid(_problem(each) for each in invalid_fields(error))) from error


def _problem(found: InvalidField) -> tuple[str, str]:
    """Return the field and what is wrong with it, in this API's words."""
    path, problem = dotted(tuple(_field_path(found.location)), ""), found.text
    if found.kind == "union_tag_invalid":
        tag = str(found.context["tag"])
        path, problem = f"{path}.type", UNSUPPORTED.get(tag, f"{tag[:64]} is not supported")
    elif found.kind == "union_tag_not_found":
        path, problem = f"{path}.type", "is required"
    field, separator, rest = problem.partition(": ")
    if separator and found.kind == "value_error":  # the validators above name the field themselves
        path, problem = f"{path}.{field}".lstrip("."), rest
    return path or "body", problem


def _field_path(location: tuple[int | str, ...]) -> Iterator[int | str]:
    """Yield `location` without the type names that pydantic inserts after a union (`content.N` and `source`)."""
    for index, part in enumerate(location):
        before = location[max(0, index - 2) : index]
        after_source = before[-1:] == ("source",)
        after_block = len(before) == 2 and before[0] == "content" and isinstance(before[1], int)
        if not after_source and not after_block:
            yield part
