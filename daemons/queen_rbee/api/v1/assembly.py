"""Assembly of a complete OpenAI answer from the chunks of its stream, for clients that did not ask for a stream. Pure.

Engines are always asked for a stream. Fields are merged by the type of their value, not by name, so that fields of a
single engine survive: strings are concatenated, lists extended, objects merged; any other value replaces the earlier.
Measured against llama-server (build 11669): the result equals its own document.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue
from pydantic_core import from_json

REPLACED = frozenset({"role", "id", "type", "index", "object", "finish_reason", "stop_reason"})
"""Strings that are not concatenated: engines repeat some of them in each chunk."""


@dataclass
class _Text:
    """A string in pieces, joined once at the end."""

    pieces: list[str] = field(default_factory=list)


_Parts = dict[str, object]
"""Fields under assembly: JSON values, with a _Text for each string that may grow."""


class AnswerAssembly:
    """Takes the chunks of one answer in order."""

    def __init__(self) -> None:
        self._top: dict[str, JsonValue] = {}
        self._choices: dict[int, _Parts] = {}

    @property
    def empty(self) -> bool:
        """Whether no chunk had a choice."""
        return not self._choices

    def add(self, chunk: Mapping[str, JsonValue]) -> None:
        """Add a chunk. Parts that do not follow OpenAI's format are ignored."""
        self._top |= {key: value for key, value in chunk.items() if key != "choices" and value is not None}
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                index = choice.get("index")
                _merge(self._choices.setdefault(index if isinstance(index, int) else 0, {}), choice)

    def add_json(self, chunk: str | bytes) -> None:
        """Add a chunk that is JSON text. Raises ValueError if it is not."""
        self.add(from_json(chunk))

    def document(self) -> dict[str, JsonValue]:
        """Return the answer assembled so far."""
        kind = self._top.get("object")
        of_document = {"object": kind.removesuffix(".chunk")} if isinstance(kind, str) else {}
        choices: list[JsonValue] = [_choice(self._choices[index]) for index in sorted(self._choices)]
        return {**self._top, **of_document, "choices": choices}


def _merge(into: _Parts, more: Mapping[str, JsonValue]) -> None:
    for key, value in more.items():
        earlier = into.get(key)
        if value is None:
            into.setdefault(key, None)
        elif isinstance(value, str) and key not in REPLACED:
            into[key] = _append_text(earlier, value)
        elif isinstance(value, dict):
            into[key] = merged = earlier if isinstance(earlier, dict) else {}
            _merge(merged, value)
        elif isinstance(value, list):
            into[key] = extended = earlier if isinstance(earlier, list) else []
            _extend(extended, value)
        else:
            into[key] = value


def _append_text(earlier: object, value: str) -> _Text:
    text = earlier if isinstance(earlier, _Text) else _Text()
    text.pieces.append(value)
    return text


def _extend(into: list[object], more: Iterable[JsonValue]) -> None:
    """Merge items that have an `index` (tool calls) into the item of that index; append others."""
    for item in more:
        if isinstance(item, dict) and item.get("index") is not None:
            _merge(_item_with_index(into, item["index"]), item)
        else:
            into.append(item)


def _item_with_index(items: list[object], index: JsonValue) -> _Parts:
    for item in items:
        if isinstance(item, dict) and item.get("index") == index:
            return item
    new: _Parts = {}
    items.append(new)
    return new


def _choice(parts: _Parts) -> JsonValue:
    """Return a choice as documents have it: `message` instead of `delta`, tool calls sorted and without `index`."""
    choice = {key: _to_json(value) for key, value in parts.items() if key != "delta"}
    message = _to_json(parts.get("delta"))
    if not isinstance(message, dict):
        return choice
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [_without_index(call) for call in sorted(calls, key=_index)]
    return {**choice, "message": message}


def _index(call: JsonValue) -> int:
    index = call.get("index") if isinstance(call, dict) else None
    return index if isinstance(index, int) else 0


def _without_index(call: JsonValue) -> JsonValue:
    return {key: value for key, value in call.items() if key != "index"} if isinstance(call, dict) else call


def _to_json(part: object) -> JsonValue:
    if isinstance(part, _Text):
        return "".join(part.pieces)
    if isinstance(part, dict):
        return {key: _to_json(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_to_json(item) for item in part]
    return part if isinstance(part, str | int | float) else None
