"""The messages of an OpenAI chat, made from the turns of another API.

The result avoids what chat templates disagree about: consecutive turns of one role are joined, and text stays a plain
string unless there are images.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Literal

from pydantic import JsonValue

Json = dict[str, JsonValue]
Role = Literal["user", "assistant", "tool"]


@dataclass(frozen=True)
class Image:
    """A picture: the URL from which the engine gets it, or a `data:` URL that contains it."""

    url: str
    detail: str | None = None


Part = str | Image


@dataclass(frozen=True)
class Call:
    """A tool call of the assistant. `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ChatTurn:
    """One message of the chat. `answered_call` is the id of the call that a tool's message answers."""

    role: Role
    parts: tuple[Part, ...] = ()
    calls: tuple[Call, ...] = ()
    thoughts: tuple[str, ...] = ()
    answered_call: str | None = None


def system_messages(texts: Iterable[str]) -> list[JsonValue]:
    """Return the instructions before the first turn as one message, or as none if there are none."""
    text = join_texts(texts)
    return [{"role": "system", "content": text}] if text else []


def join_turns(turns: Iterable[ChatTurn]) -> list[ChatTurn]:
    """Join consecutive turns of one role, except turns of tools."""
    return [turn for role, run in groupby(turns, lambda turn: turn.role) for turn in _join(role, [*run])]


def _join(role: Role, run: list[ChatTurn]) -> list[ChatTurn]:
    """Join `run` into one turn. All at once: turn by turn, 10,000 turns take a second."""
    if role == "tool" or len(run) == 1:
        return run
    parts = tuple(chain.from_iterable(turn.parts for turn in run))
    calls = tuple(chain.from_iterable(turn.calls for turn in run))
    thoughts = tuple(chain.from_iterable(turn.thoughts for turn in run))
    return [ChatTurn(role, parts, calls, thoughts)]


def result_turns(results: Sequence[tuple[str, Sequence[Part]]]) -> list[ChatTurn]:
    """Return the turns for results of tools: (call id, parts). A tool's message has only text: images follow them in a
    turn of the user."""
    tools = [ChatTurn("tool", tuple(_texts(parts)), answered_call=call_id) for call_id, parts in results]
    images = tuple(part for _call_id, parts in results for part in parts if isinstance(part, Image))
    return [*tools, ChatTurn("user", images)] if images else tools


def _texts(parts: Iterable[Part]) -> Iterator[str]:
    return (part for part in parts if isinstance(part, str))


def chat_message(turn: ChatTurn) -> JsonValue:
    message: Json = {"role": turn.role, "content": _content(turn.parts)}
    if turn.calls:
        message["tool_calls"] = [_call(call) for call in turn.calls]
    if turn.thoughts:
        message["reasoning_content"] = "\n".join(turn.thoughts)
    if turn.answered_call is not None:
        message["tool_call_id"] = turn.answered_call
    return message


def _content(parts: Sequence[Part]) -> JsonValue:
    if any(isinstance(part, Image) for part in parts):
        return [_part(part) for part in parts]
    return join_texts(_texts(parts))


def join_texts(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text)


def _part(part: Part) -> JsonValue:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    image: Json = {"url": part.url}
    return {"type": "image_url", "image_url": image | {"detail": part.detail} if part.detail else image}


def _call(call: Call) -> JsonValue:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
