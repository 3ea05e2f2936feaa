"""The request body of POST /v1/responses, and messages for its problems.

Fields that this release does not know are passed on to the engine, as those of chat completions are. Fields that would
promise what no engine does are refused.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.keep_alive import KeepAlive
from llama_orch.contracts.openai import MAX_TOOLS
from llama_orch.contracts.validation import InvalidField, indexed, invalid_fields
from llama_orch.http.server.bodies import finite, invalid
from queen_rbee.api.v1.chat.fields import MAX_TOKENS, Lenient, Name, Object
from queen_rbee.api.v1.responses.items import SERVER_ITEM, TAGS, UNSUPPORTED, Items
from queen_rbee.api.v1.responses.tools import (
    TOOL_TAGS,
    UNSUPPORTED_TOOL,
    Function,
    ToolChoice,
    Tools,
    as_choice,
    functions_of,
)

CHAT_FIELDS: Mapping[str, str] = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "n": "several requests",
    "logprobs": "/v1/chat/completions",
    "functions": "tools",
    "function_call": "tool_choice",
}
"""Fields of chat completions, each with what this API has instead."""
LOG_PROBABILITIES = "message.output_text.logprobs"


def _refused(advice: str, *harmless: JsonValue) -> AfterValidator:
    """Return the validator of a field that may only be null or one of `harmless`, which have no effect."""

    def check(value: JsonValue) -> JsonValue:
        if value is None or value in harmless:
            return value
        raise ValueError(f"is not supported: {advice}")

    return AfterValidator(check)


class TextFormat(Lenient):
    """The format of the answer. `schema` and `name` belong to json_schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    description: str | None = None
    schema_: Annotated[Object | None, Field(alias="schema")] = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> "TextFormat":
        if self.type == "json_schema" and self.schema_ is None:
            raise ValueError("schema: is required for json_schema")
        return self


class TextConfig(Lenient):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningConfig(Lenient):
    """`effort` none turns thinking off. Reasoning is shown itself: there is no `summary` of it."""

    effort: Name | None = None
    summary: Name | None = None


MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataText = Annotated[str, StringConstraints(max_length=512)]


class ResponsesRequest(Lenient):
    """A request for a response."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    model: Annotated[str, StringConstraints(max_length=512)] | None = None
    input: Items
    instructions: str | None = None
    previous_response_id: Name | None = None
    store: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stream: bool | None = None
    tools: Tools = None
    tool_choice: Annotated[
        ToolChoice | None,
        BeforeValidator(as_choice, json_schema_input_type=Literal["none", "auto", "required"] | ToolChoice | None),
    ] = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    metadata: Annotated[dict[MetadataKey, MetadataText] | None, Field(max_length=16)] = None
    prompt_cache_key: Name | None = None
    keep_alive: KeepAlive | None = None

    include: Annotated[tuple[Name, ...] | None, Field(max_length=64), FailFast()] = None
    truncation: Annotated[JsonValue, _refused("shorten the input", "disabled")] = None
    background: Annotated[JsonValue, _refused("use POST /v2/tasks for work without a connection", False)] = None
    conversation: Annotated[
        JsonValue, _refused("use previous_response_id, or send the whole conversation as input")
    ] = None
    prompt: Annotated[JsonValue, _refused("send the text of the prompt as instructions and input")] = None
    context_management: Annotated[JsonValue, _refused("shorten the input", [])] = None
    moderation: Annotated[JsonValue, _refused("no engine has it")] = None
    top_logprobs: Annotated[JsonValue, _refused("use POST /v1/chat/completions", 0)] = None

    max_tool_calls: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: JsonValue = None
    stream_options: JsonValue = None
    client_metadata: JsonValue = None
    """From `max_tool_calls` on: without effect here, and not passed on."""

    @model_validator(mode="after")
    def _check(self) -> "ResponsesRequest":
        for name, instead in CHAT_FIELDS.items():
            if (self.model_extra or {}).get(name) is not None:
                raise ValueError(f"{name}: is a field of chat completions; use {instead}")
        if not finite(self.model_extra or {}):
            raise ValueError("body: numbers must be finite")
        if LOG_PROBABILITIES in (self.include or ()):
            raise ValueError(f"include: {LOG_PROBABILITIES} is not supported: use POST /v1/chat/completions")
        self._check_tools()
        return self

    @property
    def functions(self) -> list[Function]:
        """The tools, also those of namespaces."""
        return [*functions_of(self.tools or ())]

    def _check_tools(self) -> None:
        functions, choice = self.functions, self.tool_choice
        if len(functions) > MAX_TOOLS:
            raise ValueError(f"tools: have more than {MAX_TOOLS} functions")
        if choice is None or choice.type in ("none", "auto"):
            return
        if not functions:
            raise ValueError(f"tool_choice: {choice.type} requires `tools`")
        unknown = (choice.names or frozenset()) - {function.chat_name for function in functions}
        if unknown:
            raise ValueError(f"tool_choice: {min(unknown)[:64]!r} is not the name of one of `tools`")


def parse(body: bytes | bytearray) -> ResponsesRequest:
    """Parse a request body. Raises ApiError 400 that names each invalid field, such as `input[0].content[1].text`."""
    try:
        return ResponsesRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise ApiError(400, invalid(_problem(each) for each in invalid_fields(error))) from error


def _problem(found: InvalidField) -> tuple[str, str]:
    """Return the field and what is wrong with it, in this API's words."""
    location, problem = tuple(_field_path(found.location)), found.text
    if found.kind == "union_tag_invalid":
        tag = str(found.context["tag"])
        known = UNSUPPORTED.get(tag) if location[0] == "input" else UNSUPPORTED_TOOL
        advice = SERVER_ITEM if tag.endswith(("_call", "_call_output")) or "mcp" in tag else "is not supported"
        location, problem = (*location, "type"), known.format(tag[:64]) if known else f"{tag[:64]} {advice}"
    elif found.kind == "union_tag_not_found":
        location, problem = (*location, "type"), "is required"
    path = indexed(location)
    field, separator, rest = problem.partition(": ")
    if separator and found.kind == "value_error" and " " not in field:  # the validators above name the field themselves
        path, problem = f"{path}.{field}".lstrip("."), rest
    return path or "body", problem


def _field_path(location: tuple[int | str, ...]) -> Iterator[int | str]:
    """Yield `location` without the type names that pydantic inserts after the index of an item or part."""
    for index, part in enumerate(location):
        if not (part in TAGS | TOOL_TAGS and index and isinstance(location[index - 1], int)):
            yield part
