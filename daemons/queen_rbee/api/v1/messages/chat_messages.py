"""Translation of Anthropic's messages into those of an OpenAI chat.

Instructions between turns become part of the user's turn, and images from tool results follow in the user's turn.
"""

from collections.abc import Iterator
from itertools import chain, takewhile
from json import dumps

from pydantic import JsonValue

from queen_rbee.api.v1.chat.turns import (
    Call,
    ChatTurn,
    Image,
    Part,
    chat_message,
    join_turns,
    result_turns,
    system_messages,
)
from queen_rbee.api.v1.messages import blocks
from queen_rbee.api.v1.messages.blocks import Base64Image, Text, Thinking, ToolResult, ToolUse
from queen_rbee.api.v1.messages.request import CountRequest, Message

BILLING_PREFIX = "x-anthropic-billing-header"
"""Prefix of a system block that Claude Code sends and that is not an instruction: a hash that changes with each request
and would keep the engine from finding the rest of the prompt in its prefix cache."""


def chat_messages(request: CountRequest) -> list[JsonValue]:
    return [*system_messages(_instructions(request)), *map(chat_message, _turns(request))]


def continues_assistant_turn(request: CountRequest) -> bool:
    """Return whether the answer continues the last message, which the assistant has begun."""
    turns = _turns(request)
    return bool(turns) and turns[-1].role == "assistant" and not turns[-1].calls


def _instructions(request: CountRequest) -> Iterator[str]:
    """Yield the instructions before the first turn."""
    leading = takewhile(_is_system, request.messages)
    for block in chain(request.system, *(message.content for message in leading)):
        if isinstance(block, Text) and not block.text.startswith(BILLING_PREFIX):
            yield block.text


def _is_system(message: Message) -> bool:
    return message.role == "system"


def _turns(request: CountRequest) -> list[ChatTurn]:
    """Return the turns after the leading instructions."""
    leading = len(list(takewhile(_is_system, request.messages)))
    return join_turns(turn for message in request.messages[leading:] for turn in _turns_of(message))


def _turns_of(message: Message) -> list[ChatTurn]:
    content = message.content
    parts = tuple(_part(block) for block in content if isinstance(block, Text | blocks.Image))
    if message.role == "assistant":
        calls = tuple(_call(block) for block in content if isinstance(block, ToolUse))
        thoughts = tuple(block.thinking for block in content if isinstance(block, Thinking))
        return [ChatTurn("assistant", parts, calls, thoughts)] if parts or calls or thoughts else []
    results = result_turns([_result(block) for block in content if isinstance(block, ToolResult)])
    return [*results, ChatTurn("user", parts)] if parts or not results else results


def _result(result: ToolResult) -> tuple[str, tuple[Part, ...]]:
    """Return call id and result. OpenAI's format has no error flag, so an error is marked in the text."""
    parts = tuple(map(_part, result.content))
    return result.tool_use_id, ("Error:", *parts) if result.is_error else parts


def _part(part: Text | blocks.Image) -> Part:
    if isinstance(part, Text):
        return part.text
    source = part.source
    return Image(f"data:{source.media_type};base64,{source.data}" if isinstance(source, Base64Image) else source.url)


def _call(call: ToolUse) -> Call:
    return Call(call.id, call.name, dumps(call.input, ensure_ascii=False))
