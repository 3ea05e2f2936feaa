"""The whole answer from the chunks of its stream: what an OpenAI client gets that did not ask for a stream. Pure.

Engines are always asked for a stream. What belongs together is put together by its kind, not by its name, so that
fields which only one engine has come through as well: texts are joined, lists go on, objects are filled up, anything
else is replaced by what came last. Measured against llama-server (build 11669): the same document as it makes itself.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

REPLACED = frozenset({"role", "id", "type", "index", "object", "finish_reason", "stop_reason"})
"""Texts that are names and not pieces: engines repeat some of them in each chunk."""


@dataclass
class _Text:
    """A text in pieces: joined once, at the end."""

    pieces: list[str] = field(default_factory=list)


_Parts = dict[str, object]
"""Fields as they grow: JSON, with a _Text for each text that may go on."""


class Assembly:
    """Takes the chunks of one answer, in turn."""

    def __init__(self) -> None:
        self._top: dict[str, JsonValue] = {}
        self._choices: dict[int, _Parts] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing has come that makes an answer."""
        return not self._choices

    def take(self, chunk: Mapping[str, JsonValue]) -> None:
        """The next chunk; what is not as OpenAI has it is left out."""
        self._top |= {key: value for key, value in chunk.items() if key != "choices" and value is not None}
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                index = choice.get("index")
                _fill(self._choices.setdefault(index if isinstance(index, int) else 0, {}), choice)

    def take_json(self, chunk: bytes) -> None:
        """The same, as JSON. Raises ValueError where it is none."""
        self.take(json.loads(chunk))

    def document(self) -> dict[str, JsonValue]:
        """The answer as it is by now."""
        kind = self._top.get("object")
        whole = {"object": kind.removesuffix(".chunk")} if isinstance(kind, str) else {}
        choices: list[JsonValue] = [_choice(self._choices[index]) for index in sorted(self._choices)]
        return {**self._top, **whole, "choices": choices}


def _fill(into: _Parts, more: Mapping[str, JsonValue]) -> None:
    for key, value in more.items():
        known = into.get(key)
        if value is None:
            into.setdefault(key, None)
        elif isinstance(value, str) and key not in REPLACED:
            into[key] = _joined(known, value)
        elif isinstance(value, dict):
            into[key] = filled = known if isinstance(known, dict) else {}
            _fill(filled, value)
        elif isinstance(value, list):
            into[key] = listed = known if isinstance(known, list) else []
            _extend(listed, value)
        else:
            into[key] = value


def _joined(known: object, value: str) -> _Text:
    text = known if isinstance(known, _Text) else _Text()
    text.pieces.append(value)
    return text


def _extend(into: list[object], more: Iterable[JsonValue]) -> None:
    """Items with an `index` (tool calls) are filled up wherever they stand, others follow each other."""
    for item in more:
        if isinstance(item, dict) and item.get("index") is not None:
            _fill(_numbered(into, item["index"]), item)
        else:
            into.append(item)


def _numbered(items: list[object], index: JsonValue) -> _Parts:
    for item in items:
        if isinstance(item, dict) and item.get("index") == index:
            return item
    made: _Parts = {}
    items.append(made)
    return made


def _choice(parts: _Parts) -> JsonValue:
    """A choice as documents have it: `message` for `delta`, tool calls in their order and without an index."""
    found = {key: _whole(value) for key, value in parts.items() if key != "delta"}
    message = _whole(parts.get("delta"))
    if not isinstance(message, dict):
        return found
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [_unnumbered(call) for call in sorted(calls, key=_number)]
    return {**found, "message": message}


def _number(call: JsonValue) -> int:
    index = call.get("index") if isinstance(call, dict) else None
    return index if isinstance(index, int) else 0


def _unnumbered(call: JsonValue) -> JsonValue:
    return {key: value for key, value in call.items() if key != "index"} if isinstance(call, dict) else call


def _whole(part: object) -> JsonValue:
    if isinstance(part, _Text):
        return "".join(part.pieces)
    if isinstance(part, dict):
        return {key: _whole(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_whole(item) for item in part]
    return part if isinstance(part, str | int | float) else None
