"""Translation of Anthropic's messages into those of an OpenAI chat.

The result avoids what chat templates disagree about: consecutive turns of one role are joined, instructions between
turns become part of the user's turn, text stays a plain string, and images from tool results follow in the user's turn.
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

BILLING_PREFIX = "x-anthropic-billing-header"
"""Prefix of a system block that Claude Code sends and that is not an instruction: a hash that changes with each request
and would keep the engine from finding the rest of the prompt in its prefix cache."""


@dataclass(frozen=True)
class ChatTurn:
    """One message of the chat. `answered_call` is the id of the call that a tool's message answers."""

    role: Role
    parts: tuple[Text | Image, ...] = ()
    calls: tuple[ToolUse, ...] = ()
    thoughts: tuple[str, ...] = ()
    answered_call: str | None = None


def chat_messages(request: CountRequest) -> list[JsonValue]:
    return [*_system(request), *map(_message, _turns(request))]


def continues_assistant_turn(request: CountRequest) -> bool:
    """Return whether the answer continues the last message, which the assistant has begun."""
    turns = _turns(request)
    return bool(turns) and turns[-1].role == "assistant" and not turns[-1].calls


def _system(request: CountRequest) -> list[JsonValue]:
    """Return the instructions before the first turn as one message."""
    leading = takewhile(_is_system, request.messages)
    blocks = [*request.system, *(block for message in leading for block in message.content if isinstance(block, Text))]
    text = _text(block for block in blocks if not block.text.startswith(BILLING_PREFIX))
    return [{"role": "system", "content": text}] if text else []


def _is_system(message: Message) -> bool:
    return message.role == "system"


def _turns(request: CountRequest) -> list[ChatTurn]:
    """Return the turns after the leading instructions; consecutive turns of one role are joined."""
    leading = len(list(takewhile(_is_system, request.messages)))
    each = (turn for message in request.messages[leading:] for turn in _turns_of(message))
    return [turn for role, run in groupby(each, lambda turn: turn.role) for turn in _join(role, [*run])]


def _join(role: Role, run: list[ChatTurn]) -> list[ChatTurn]:
    """Join `run` into one turn, except turns of tools. All at once: turn by turn, 10,000 turns take a second."""
    if role == "tool" or len(run) == 1:
        return run
    parts = tuple(chain.from_iterable(turn.parts for turn in run))
    calls = tuple(chain.from_iterable(turn.calls for turn in run))
    thoughts = tuple(chain.from_iterable(turn.thoughts for turn in run))
    return [ChatTurn(role, parts, calls, thoughts)]


def _turns_of(message: Message) -> list[ChatTurn]:
    blocks = message.content
    parts = tuple(block for block in blocks if isinstance(block, Text | Image))
    if message.role == "assistant":
        calls = tuple(block for block in blocks if isinstance(block, ToolUse))
        thoughts = tuple(block.thinking for block in blocks if isinstance(block, Thinking))
        return [ChatTurn("assistant", parts, calls, thoughts)] if parts or calls or thoughts else []
    results = [block for block in blocks if isinstance(block, ToolResult)]
    images = tuple(part for result in results for part in result.content if isinstance(part, Image))
    tools = [ChatTurn("tool", _result(result), answered_call=result.tool_use_id) for result in results]
    return [*tools, ChatTurn("user", images + parts)] if images or parts or not tools else tools


def _result(result: ToolResult) -> tuple[Text, ...]:
    """Return the text of a tool result. OpenAI's format has no error flag, so an error is marked in the text."""
    texts = tuple(part for part in result.content if isinstance(part, Text))
    return (Text(type="text", text="Error:"), *texts) if result.is_error else texts


def _message(turn: ChatTurn) -> JsonValue:
    message: Json = {"role": turn.role, "content": _content(turn.parts)}
    if turn.calls:
        message["tool_calls"] = [_call(call) for call in turn.calls]
    if turn.thoughts:
        message["reasoning_content"] = "\n".join(turn.thoughts)
    if turn.answered_call is not None:
        message["tool_call_id"] = turn.answered_call
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
