"""The content of a message as Anthropic's clients write it: blocks of text, images, thoughts, and the use of tools.

Shapes as in https://docs.claude.com/en/api/messages. Fields that are not named here are let be (cache_control,
citations, what newer clients send); a block that no engine here understands is refused.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    StringConstraints,
)

from llama_orch.http.server.bodies import finite

Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]

NOT_HERE: Mapping[str, str] = {
    "document": "documents are not read here: send what they say as a text block",
    "search_result": "search results are not read here: send what they say as a text block",
    "container_upload": "there are no containers here",
    "tool_reference": "tools cannot be found by search here: name each in `tools`",
}
"""What to say of the blocks that only Anthropic's own service understands."""


def _finite(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """JSON has no infinity, but 1e999 is read as one."""
    if not finite(value):
        raise ValueError("numbers must be finite")
    return value


Object = Annotated[dict[str, JsonValue], AfterValidator(_finite)]
"""A JSON object that can be written as JSON again."""


class Lenient(BaseModel):
    """Read from clients of another API, perhaps of a newer release: unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Text(Lenient):
    """A piece of text."""

    type: Literal["text"]
    text: str


class Base64Image(Lenient):
    """An image in the request itself."""

    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: Annotated[str, StringConstraints(min_length=1)]


class UrlImage(Lenient):
    """An image that the engine fetches, if it does."""

    type: Literal["url"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://", max_length=8192)]


class Image(Lenient):
    """An image."""

    type: Literal["image"]
    source: Annotated[Base64Image | UrlImage, Field(discriminator="type")]


class Thinking(Lenient):
    """What the assistant thought before it spoke."""

    type: Literal["thinking"]
    thinking: str


class RedactedThinking(Lenient):
    """Thoughts that only Anthropic can read: they are passed over."""

    type: Literal["redacted_thinking"]


class ToolUse(Lenient):
    """The assistant calls a tool."""

    type: Literal["tool_use"]
    id: Name
    name: Name
    input: Object


def as_blocks(content: object) -> object:
    """A string is short for one block of text, and null for none."""
    if content is None:
        return ()
    if isinstance(content, str):
        return ({"type": "text", "text": content},)
    return tuple(content) if isinstance(content, list) else content


Parts = tuple[Annotated[Text | Image, Field(discriminator="type")], ...]


class ToolResult(Lenient):
    """What a tool answered."""

    type: Literal["tool_result"]
    tool_use_id: Name
    content: Annotated[Parts, FailFast(), BeforeValidator(as_blocks, json_schema_input_type=str | Parts | None)] = ()
    is_error: bool | None = None


def _interrupted(block: object) -> object:
    """Python code, at which other threads get their turn: pydantic by itself holds the interpreter's lock to the end of
    the last of 30,000 blocks."""
    return block


Block = Annotated[
    Text | Image | Thinking | RedactedThinking | ToolUse | ToolResult,
    Field(discriminator="type"),
    AfterValidator(_interrupted),
]
Blocks = Annotated[
    tuple[Block, ...], FailFast(), BeforeValidator(as_blocks, json_schema_input_type=str | tuple[Block, ...] | None)
]
Texts = Annotated[
    tuple[Text, ...], FailFast(), BeforeValidator(as_blocks, json_schema_input_type=str | tuple[Text, ...] | None)
]

WRITTEN_BY: Mapping[str, frozenset[str]] = {
    "user": frozenset({"text", "image", "tool_result"}),
    "assistant": frozenset({"text", "thinking", "redacted_thinking", "tool_use"}),
    "system": frozenset({"text"}),
}
"""The blocks that a message of each role may have."""
