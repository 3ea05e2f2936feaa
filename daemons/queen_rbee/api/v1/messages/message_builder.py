"""Assembly of a complete message from the events of its stream, for clients that did not ask for a stream."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from queen_rbee.api.v1.chat.turns import Json
from queen_rbee.api.v1.messages.events import MessageEvent

INVALID_INPUT = "INVALID_JSON"
"""Key that holds a tool's input that is not a JSON object: the model wrote it so, or was cut off."""


@dataclass
class _Block:
    head: dict[str, Any]
    pieces: list[str] = field(default_factory=list)

    def to_json(self) -> JsonValue:
        text, kind = "".join(self.pieces), self.head["type"]
        return {**self.head, **({"input": _tool_input(text)} if kind == "tool_use" else {kind: text})}


class MessageBuilder:
    """Takes the events of one stream in order."""

    def __init__(self) -> None:
        self._message: Json = {}
        self._blocks: list[_Block] = []

    def add(self, events: Iterable[MessageEvent]) -> None:
        for event in events:
            self._add(event.data)

    def message(self) -> Json:
        """Return the message built so far."""
        return self._message | {"content": [block.to_json() for block in self._blocks]}

    def _add(self, data: dict[str, Any]) -> None:
        match data["type"]:
            case "message_start":
                self._message = data["message"]
            case "content_block_start":
                self._blocks.append(_Block(data["content_block"]))
            case "content_block_delta":
                self._blocks[-1].pieces.append(_delta_text(data["delta"]))
            case "message_delta":
                self._message = self._message | data["delta"] | {"usage": data["usage"]}


def _delta_text(delta: dict[str, str]) -> str:
    """Return the text of a delta; a signature has none."""
    return delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""


def _tool_input(arguments: str) -> JsonValue:
    """Parse a tool's input. No arguments are an empty object."""
    try:
        parsed: JsonValue = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {INVALID_INPUT: arguments}
