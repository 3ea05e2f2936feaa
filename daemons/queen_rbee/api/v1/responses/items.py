"""Input items of the Responses API: messages, tool calls and their outputs, and reasoning.

As in https://platform.openai.com/docs/api-reference/responses/create. Output items of a response are valid input items.
Unknown fields are ignored; an item that no engine supports is refused.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    FailFast,
    Field,
    StringConstraints,
    Tag,
    TypeAdapter,
    model_validator,
)

from llama_orch.contracts.openai import MAX_MESSAGES
from queen_rbee.api.v1.chat.fields import Lenient, Name, release_gil

MESSAGE = "message"
REFERENCE = "item_reference"
SERVER_ITEM = "is an item of a tool that only OpenAI's service runs"
UNSUPPORTED: Mapping[str, str] = {
    "input_file": "files are not supported: send their content as input_text",
    "input_audio": "audio is not supported",
    "custom_tool_call": "custom tools are not supported: declare a tool of type function",
    "custom_tool_call_output": "custom tools are not supported: declare a tool of type function",
}
"""Messages for types of items and parts that only OpenAI's own service supports."""

ImageUrl = Annotated[str, StringConstraints(pattern=r"^(https?://|data:image/)")]


class Text(Lenient):
    """Text; clients send back the output's own."""

    type: Literal["input_text", "output_text", "reasoning_text", "summary_text"]
    text: str


class Refusal(Lenient):
    """The assistant's refusal to answer."""

    type: Literal["refusal"]
    refusal: str


class InputImage(Lenient):
    """An image: a `data:` URL, or one that the engine fetches, if it can."""

    type: Literal["input_image"]
    image_url: ImageUrl | None = None
    detail: Literal["low", "high", "auto", "original"] | None = None

    @model_validator(mode="after")
    def _check_source(self) -> "InputImage":
        if self.image_url is None:
            raise ValueError("image_url: is required; files (file_id) are not supported")
        return self


def as_parts(content: object) -> object:
    """Convert the short forms: a string is one part, null is none."""
    if content is None:
        return ()
    if isinstance(content, str):
        return ({"type": "input_text", "text": content},)
    return tuple(content) if isinstance(content, list) else content


Part = Annotated[Text | Refusal | InputImage, Field(discriminator="type"), AfterValidator(release_gil)]
Parts = Annotated[
    tuple[Part, ...],
    FailFast(),
    BeforeValidator(as_parts, json_schema_input_type=str | tuple[Part, ...] | None),
]
Texts = Annotated[
    tuple[Text, ...], FailFast(), BeforeValidator(as_parts, json_schema_input_type=tuple[Text, ...] | None)
]


class Message(Lenient):
    """One message. Those of `system` and `developer` are instructions."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Parts

    @model_validator(mode="after")
    def _check_content(self) -> "Message":
        for index, part in enumerate(self.content):
            if part.type == "input_image" and self.role != "user":
                raise ValueError(f"content[{index}]: a message of role {self.role} must not have images")
        return self


class FunctionCall(Lenient):
    """A tool call of the assistant. `arguments` is JSON text."""

    type: Literal["function_call"]
    call_id: Name
    name: Name
    namespace: Name | None = None
    arguments: str


class FunctionCallOutput(Lenient):
    """What the client's tool returned."""

    type: Literal["function_call_output"]
    call_id: Name
    output: Parts


class Reasoning(Lenient):
    """The assistant's reasoning in an earlier turn. Encrypted reasoning, which only OpenAI can read, is ignored."""

    type: Literal["reasoning"]
    content: Texts = ()
    summary: Texts = ()


class ItemReference(Lenient):
    """An output item of a stored response."""

    type: Literal["item_reference"] = "item_reference"
    id: Name


def _type_of(item: object) -> str | None:
    """Return the type of an item. One without a type is a message, or a reference if it has only an id."""
    if not isinstance(item, dict):
        return getattr(item, "type", None)
    kind = item.get("type")
    if kind is None:
        return REFERENCE if "id" in item and "role" not in item else MESSAGE
    return kind if isinstance(kind, str) else None


Item = Annotated[
    Annotated[Message, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[Reasoning, Tag("reasoning")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(_type_of),
    AfterValidator(release_gil),
]


def as_items(given: object) -> object:
    """Convert the short form: a string is one message of the user."""
    if isinstance(given, str):
        return ({"type": MESSAGE, "role": "user", "content": given},)
    return tuple(given) if isinstance(given, list) else given


def _not_empty(items: tuple[Item, ...]) -> tuple[Item, ...]:
    # pydantic's min_length would count only the valid items
    if not items:
        raise ValueError("must not be empty")
    return items


Items = Annotated[
    tuple[Item, ...],
    Field(max_length=MAX_MESSAGES),
    FailFast(),
    AfterValidator(_not_empty),
    BeforeValidator(
        as_items,
        json_schema_input_type=str | Annotated[tuple[Item, ...], Field(min_length=1, max_length=MAX_MESSAGES)],
    ),
]
ITEMS: TypeAdapter[tuple[Item, ...]] = TypeAdapter(tuple[Item, ...])
"""Reads and writes the items of stored responses."""

TAGS = frozenset(
    ("message", "function_call", "function_call_output", "reasoning", "input_text", "output_text", "reasoning_text")
) | {"summary_text", "refusal", "input_image", "item_reference"}
"""The types that pydantic inserts into the location of a problem, each after the index of its item or part."""
