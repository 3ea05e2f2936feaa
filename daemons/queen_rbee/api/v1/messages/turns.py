"""From Anthropic's messages to those of an OpenAI chat.

What chat templates differ in is avoided: turns of one role are joined, instructions in between become part of the
user's turn, text stays a plain string, and images that a tool shows follow in the user's turn.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, groupby, takewhile
from json import dumps
from typing import Literal

from pydantic import JsonValue

from queen_rbee.api.v1.messages.blocks import Base64Image, Image, Text, Thinking, ToolResult, ToolUse
from queen_rbee.api.v1.messages.request import CountRequest, Message

Json = dict[str, JsonValue]
Role = Literal["user", "assistant", "tool"]

BILLING = "x-anthropic-billing-header"
"""How a block of Claude Code's begins that is no instruction: a hash, new with each request, that would keep the engine
from finding the rest of the prompt in its cache."""


@dataclass(frozen=True)
class Turn:
    """One message of the chat. `answers` is the id of the call that a tool's message answers."""

    role: Role
    parts: tuple[Text | Image, ...] = ()
    calls: tuple[ToolUse, ...] = ()
    thoughts: tuple[str, ...] = ()
    answers: str | None = None


def messages_of(asked: CountRequest) -> list[JsonValue]:
    """The chat's messages."""
    return [*_system(asked), *map(_message, _turns(asked))]


def goes_on(asked: CountRequest) -> bool:
    """Whether the assistant has begun the answer already: it goes on where the last turn ends."""
    turns = _turns(asked)
    return bool(turns) and turns[-1].role == "assistant" and not turns[-1].calls


def _system(asked: CountRequest) -> list[JsonValue]:
    """The instructions before the first turn, as one message."""
    leading = takewhile(_is_system, asked.messages)
    blocks = [*asked.system, *(block for message in leading for block in message.content if isinstance(block, Text))]
    text = _text(block for block in blocks if not block.text.startswith(BILLING))
    return [{"role": "system", "content": text}] if text else []


def _is_system(message: Message) -> bool:
    return message.role == "system"


def _turns(asked: CountRequest) -> list[Turn]:
    """The turns behind the leading instructions, those of one role that follow each other as one."""
    leading = len(list(takewhile(_is_system, asked.messages)))
    each = (turn for message in asked.messages[leading:] for turn in _turns_of(message))
    return [turn for role, run in groupby(each, lambda turn: turn.role) for turn in _joined(role, [*run])]


def _joined(role: Role, run: list[Turn]) -> list[Turn]:
    """`run` as one turn, but what tools say. All at once: turn by turn, 10,000 turns take a second."""
    if role == "tool" or len(run) == 1:
        return run
    parts = tuple(chain.from_iterable(turn.parts for turn in run))
    calls = tuple(chain.from_iterable(turn.calls for turn in run))
    thoughts = tuple(chain.from_iterable(turn.thoughts for turn in run))
    return [Turn(role, parts, calls, thoughts)]


def _turns_of(message: Message) -> list[Turn]:
    blocks = message.content
    parts = tuple(block for block in blocks if isinstance(block, Text | Image))
    if message.role == "assistant":
        calls = tuple(block for block in blocks if isinstance(block, ToolUse))
        thoughts = tuple(block.thinking for block in blocks if isinstance(block, Thinking))
        return [Turn("assistant", parts, calls, thoughts)] if parts or calls or thoughts else []
    results = [block for block in blocks if isinstance(block, ToolResult)]
    shown = tuple(part for result in results for part in result.content if isinstance(part, Image))
    tools = [Turn("tool", _result(result), answers=result.tool_use_id) for result in results]
    return [*tools, Turn("user", shown + parts)] if shown or parts or not tools else tools


def _result(result: ToolResult) -> tuple[Text, ...]:
    """What a tool said. OpenAI's messages cannot mark a failure: it is said in words."""
    said = tuple(part for part in result.content if isinstance(part, Text))
    return (Text(type="text", text="Error:"), *said) if result.is_error else said


def _message(turn: Turn) -> JsonValue:
    message: Json = {"role": turn.role, "content": _content(turn.parts)}
    if turn.calls:
        message["tool_calls"] = [_call(call) for call in turn.calls]
    if turn.thoughts:
        message["reasoning_content"] = "\n".join(turn.thoughts)
    if turn.answers is not None:
        message["tool_call_id"] = turn.answers
    return message


def _content(parts: Iterable[Text | Image]) -> JsonValue:
    parts = list(parts)
    if any(isinstance(part, Image) for part in parts):
        return [_part(part) for part in parts]
    return _text(part for part in parts if isinstance(part, Text))


def _text(blocks: Iterable[Text]) -> str:
    return "\n".join(block.text for block in blocks if block.text)


def _part(part: Text | Image) -> JsonValue:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    source = part.source
    url = f"data:{source.media_type};base64,{source.data}" if isinstance(source, Base64Image) else source.url
    return {"type": "image_url", "image_url": {"url": url}}


def _call(call: ToolUse) -> JsonValue:
    arguments = dumps(call.input, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
