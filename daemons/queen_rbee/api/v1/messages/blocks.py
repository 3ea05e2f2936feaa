"""Content blocks of Anthropic's messages: text, images, thoughts, tool calls and tool results.

As in https://docs.claude.com/en/api/messages. Unknown fields are ignored (cache_control, citations, fields of newer
clients). A block that no engine supports is refused.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, FailFast, Field, StringConstraints

from queen_rbee.api.v1.chat.fields import Lenient, Name, Object, Url, release_gil

UNSUPPORTED: Mapping[str, str] = {
    "document": "documents are not supported: send their content as a text block",
    "search_result": "search results are not supported: send their content as a text block",
    "container_upload": "containers are not supported",
    "tool_reference": "tool search is not supported: list each tool in `tools`",
}
"""Messages for the block types that only Anthropic's own service supports."""


class Text(Lenient):
    type: Literal["text"]
    text: str


class Base64Image(Lenient):
    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: Annotated[str, StringConstraints(min_length=1)]


class UrlImage(Lenient):
    """An image that the engine fetches, if it can."""

    type: Literal["url"]
    url: Url


class Image(Lenient):
    type: Literal["image"]
    source: Annotated[Base64Image | UrlImage, Field(discriminator="type")]


class Thinking(Lenient):
    """The assistant's reasoning in an earlier turn."""

    type: Literal["thinking"]
    thinking: str


class RedactedThinking(Lenient):
    """Encrypted reasoning that only Anthropic can read; ignored."""

    type: Literal["redacted_thinking"]


class ToolUse(Lenient):
    type: Literal["tool_use"]
    id: Name
    name: Name
    input: Object


def as_blocks(content: object) -> object:
    """Convert the short forms: a string is one text block, null is no block."""
    if content is None:
        return ()
    if isinstance(content, str):
        return ({"type": "text", "text": content},)
    return tuple(content) if isinstance(content, list) else content


Parts = tuple[Annotated[Text | Image, Field(discriminator="type")], ...]


class ToolResult(Lenient):
    type: Literal["tool_result"]
    tool_use_id: Name
    content: Annotated[Parts, FailFast(), BeforeValidator(as_blocks, json_schema_input_type=str | Parts | None)] = ()
    is_error: bool | None = None


Block = Annotated[
    Text | Image | Thinking | RedactedThinking | ToolUse | ToolResult,
    Field(discriminator="type"),
    AfterValidator(release_gil),
]
Blocks = Annotated[
    tuple[Block, ...], FailFast(), BeforeValidator(as_blocks, json_schema_input_type=str | tuple[Block, ...] | None)
]
Texts = Annotated[
    tuple[Text, ...], FailFast(), BeforeValidator(as_blocks, json_schema_input_type=str | tuple[Text, ...] | None)
]

BLOCKS_OF_ROLE: Mapping[str, frozenset[str]] = {
    "user": frozenset({"text", "image", "tool_result"}),
    "assistant": frozenset({"text", "thinking", "redacted_thinking", "tool_use"}),
    "system": frozenset({"text"}),
}
"""The block types that a message of each role may have."""
