"""The message that a client gets which does not want it as a stream: the stream's events, put together."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from queen_rbee.api.v1.messages.events import Event, Json

UNREADABLE = "INVALID_JSON"
"""Where a tool's input stands that is no JSON object: the model wrote it so, or was cut off."""


@dataclass
class _Block:
    head: dict[str, Any]
    pieces: list[str] = field(default_factory=list)

    def whole(self) -> JsonValue:
        said, kind = "".join(self.pieces), self.head["type"]
        return {**self.head, **({"input": _input(said)} if kind == "tool_use" else {kind: said})}


class Whole:
    """Takes the events of one stream, in turn."""

    def __init__(self) -> None:
        self._message: Json = {}
        self._blocks: list[_Block] = []

    def take(self, events: Iterable[Event]) -> None:
        """The next events."""
        for event in events:
            self._take(event.data)

    def message(self) -> Json:
        """The message as it is by now."""
        return self._message | {"content": [block.whole() for block in self._blocks]}

    def _take(self, data: dict[str, Any]) -> None:
        match data["type"]:
            case "message_start":
                self._message = data["message"]
            case "content_block_start":
                self._blocks.append(_Block(data["content_block"]))
            case "content_block_delta":
                self._blocks[-1].pieces.append(_said(data["delta"]))
            case "message_delta":
                self._message = self._message | data["delta"] | {"usage": data["usage"]}


def _said(delta: dict[str, str]) -> str:
    """The one text of a delta; a signature is none of it."""
    return delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""


def _input(arguments: str) -> JsonValue:
    """A tool's input; without arguments it is empty."""
    try:
        found: JsonValue = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {UNREADABLE: arguments}
